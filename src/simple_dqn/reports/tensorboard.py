"""Learning curves for TensorBoard: the columns of the statistics as event files. Only this module uses tensorboard."""

from __future__ import annotations

import contextlib
import io
import math
import time
from pathlib import Path
from typing import Any

from simple_dqn.agent import Callback
from simple_dqn.errors import OptionError, OutputError, reason
from simple_dqn.reports.csv_file import CSVFile, Row
from simple_dqn.saving.files import replace_file, require_writable
from simple_dqn.statistics import COLUMNS, Statistics


class TensorBoard(Callback):
    """Writes the columns of every phase, against training steps, to the folder of event files beside the CSV file.

    The rows of the CSV file that a resumed run keeps are written again, to a new event file that replaces the older
    ones. So no point is missing or double, also if the run before did not write event files or was killed.

    Args:
        statistics: source of the rows; it must receive the end of a phase before `TensorBoard` does.
        csv: the CSV file.

    Raises:
        OutputError: the event file cannot be written.
    """

    def __init__(self, statistics: Statistics, csv: CSVFile) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        self._statistics = statistics
        folder = events_of(csv.path)
        older = list(folder.glob("events.out.tfevents.*"))
        self._path = folder / f"events.out.tfevents.{time.time_ns()}"
        began = time.time() - csv.total_time
        head = Event(wall_time=began, file_version="brain.Event:2")
        # A TensorBoard that is open drops the points of the older files when it reads this.
        start = Event(wall_time=began, step=0, session_log=SessionLog(status=SessionLog.START))
        rows = [_event(row, began + float(row["total_time"])) for row in csv.kept]
        replace_file(self._path, _records(head, start, *rows))
        for path in older:
            path.unlink()

    def on_phase_end(self) -> None:
        if not self._statistics.num_steps:
            return
        # Not SummaryWriter, whose thread prints a traceback if the disk is full.
        try:
            with self._path.open("ab") as file:
                file.write(_records(_event(self._statistics.row, time.time())))
        except OSError as error:
            raise OutputError(f"cannot write to {self._path}: {reason(error)}") from error


def _event(row: Row | dict[str, Any], moment: float) -> Any:
    """Return the points of a row that have a value, at this moment in seconds since 1970."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = {}
    for name in COLUMNS:
        with contextlib.suppress(ValueError):  # the phase's name, or an empty cell
            values[f"{row['phase']}/{name}"] = float(row[name])
    points = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items() if math.isfinite(value)]
    return Event(wall_time=moment, step=int(row["total_train_steps"]), summary=Summary(value=points))


def _records(*events: Any) -> bytes:
    """Return events as they stand in an event file."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    content = io.BytesIO()
    writer = RecordWriter(content)
    for event in events:
        writer.write(event.SerializeToString())
    return content.getvalue()


def events_of(csv_file: Path) -> Path:
    """Return the folder of event files: pong.tensorboard for pong.csv, pong.tensorboard.1 for pong.csv.1."""
    name, csv, numbers = csv_file.name.rpartition(".csv")
    return csv_file.with_name(f"{name}.tensorboard{numbers}" if csv else f"{csv_file.name}.tensorboard")


def require_tensorboard(csv_file: str | None) -> None:
    """Check that event files can be written.

    Raises:
        OptionError: there is no CSV file, or the package is missing.
        OutputError: the folder cannot be written to.
    """
    if not csv_file:
        raise OptionError("--tensorboard true writes beside the CSV file: add --csv_file results/pong.csv")
    try:
        import tensorboard.summary.writer.record_writer  # noqa: F401
    except ImportError as error:
        raise OptionError(
            f"--tensorboard true needs the package tensorboard ({error}). Install it: "
            "scripts/python -m pip install -r requirements-tensorboard.txt"
        ) from None
    require_writable(events_of(Path(csv_file)) / "events")
