"""The files of a training: snapshots, checkpoints and statistics, never mixed with those of another run."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from simple_dqn.command_line import MainOptions
from simple_dqn.errors import OutputError, SimpleDQNError, reason
from simple_dqn.interrupts import Interrupted
from simple_dqn.reports.csv_file import CSVFile, best_test, holds_training, rows_before, rows_up_to
from simple_dqn.reports.scores import mean_text
from simple_dqn.reports.tensorboard import events_of
from simple_dqn.saving.checkpoint import Checkpoints, Chunk, set_aside
from simple_dqn.saving.files import ROOT, Lock, free_number, here, replace_file, ships
from simple_dqn.saving.names import best_of, prefix_of
from simple_dqn.saving.resume import Parts, Position
from simple_dqn.saving.settings import csv_file_of, prefix_to_continue
from simple_dqn.saving.snapshot import Snapshot, write_snapshot
from simple_dqn.saving.start import Start
from simple_dqn.statistics import COLUMNS
from simple_dqn.wording import count

logger = logging.getLogger(__name__)


class RunFiles:
    """Write a run's files, and move those of an earlier run of the same name away.

    Attributes:
        csv: the statistics, or None.

    Args:
        o: where the files go.
        start: the snapshot or checkpoint that the run continues; None for a new run.
        position: where the run is in its phases.
        parts: whose state is saved.

    Raises:
        OutputError: a file cannot be written, or another run is writing it.
    """

    def __init__(self, o: MainOptions, start: Start | None, position: Position, parts: Parts) -> None:
        self._o, self._parts, self._position = o, parts, position
        self._prefix = o.save_weights_prefix if o.trains else None
        self._saved: list[Path] = []
        self._last: Path | None = None  # the snapshot from which a later run continues
        if start and o.resume:
            self._last = start.path.with_suffix(".pkl") if start.checkpoint else start.path
        self._saved_transitions = int(parts.memory.added.sum())  # those of the last checkpoint
        if o.csv_file and not (o.trains or o.resume) and holds_training(Path(o.csv_file)):
            raise OutputError(
                f"{o.csv_file} holds the statistics of a training, and this run does not train: name another --csv_file"
            )
        self._locks = [Lock(self._prefix)] if self._prefix else []
        self.csv: CSVFile | None = None
        try:
            if o.csv_file and o.csv_file != self._prefix:
                file = os.path.realpath(o.csv_file)
                self._locks.append(Lock(file, o.csv_file, "give this one another --csv_file"))
            number = free_number(self._prefix, o.csv_file)
            if o.csv_file:
                self.csv = CSVFile(Path(o.csv_file), COLUMNS, **self._rows_to_keep(start), number=number)
                if self.csv.copy:
                    _move_events(self.csv.path, self.csv.copy)
                self._warn_of_missing_rows(self.csv)
                parts.statistics.write_to(self.csv)
                if "best_epoch" not in position.facts:  # of a snapshot from before this was recorded
                    position.facts |= best_test(self.csv.kept)
            if self._prefix:
                self._move_older_run(Path(self._prefix), number, start)
                self._restore_best(Path(self._prefix))
        except BaseException:
            self.close()
            raise
        chunks: list[Chunk] = []  # of the memory, already among this run's files
        if start and start.checkpoint and self._continues(start) and parts.memory.count:
            chunks = start.checkpoint.chunks
        self._checkpoints = Checkpoints(self._prefix, chunks) if self._prefix and o.checkpoint else None

    def save(self, number: int, checkpoint: bool = True) -> None:
        """Save PREFIX_number.pkl and its checkpoint, if the run trains and has a prefix.

        Args:
            number: of the epoch.
            checkpoint: False if the run ended within a step, because it could not be continued exactly.
        """
        if not self._prefix:
            return
        parts, position, path = self._parts, self._position, Path(f"{self._prefix}_{number}.pkl")
        facts = position.facts | {
            "epoch": position.epoch,
            "epoch_began": position.epoch_began,
            "total_train_steps": parts.agent.total_train_steps,
            "weight_updates": parts.network.train_iterations,
        }
        write_snapshot(path, Snapshot(parts.network.layers(), parts.network.state_shape, facts))
        if "test_score" in facts and facts.get("best_epoch") == number:
            replace_file(best_of(Path(self._prefix)), path.read_bytes())
        if path not in self._saved:  # after the test it is written again, with the score
            self._saved.append(path)
            logger.info("Saved %s", path)
        self._last = path
        self._saved_transitions = int(parts.memory.added.sum())
        if self._checkpoints and checkpoint:
            self._checkpoints.save(number, self._state(facts), parts.memory)

    @contextmanager
    def save_if_interrupted(self) -> Iterator[None]:
        """If a signal or an error ends the training in this block, save what was learned since the last snapshot."""
        try:
            yield
        except Interrupted:
            self._save_unsaved(checkpoint=True)
            raise
        except Exception:  # such as a full disk, on which a snapshot may still fit
            with suppress(SimpleDQNError):
                self._save_unsaved(checkpoint=False)
            raise

    def _save_unsaved(self, checkpoint: bool) -> None:
        """Save a snapshot of the epoch under way, if anything was played since the last one."""
        self._parts.statistics.require_finite_loss()
        if self._parts.memory.added.sum() != self._saved_transitions:
            within_epoch = self._parts.agent.total_train_steps > self._position.epoch_began
            self.save(self._position.epoch + within_epoch, checkpoint=checkpoint)

    def log_names(self) -> None:
        """Log where the files are."""
        if self._saved:
            more = f" … {self._saved[-1].name} ({len(self._saved)} snapshots)" if len(self._saved) > 1 else ""
            logger.info("Snapshots are in %s%s" if more else "The snapshot is %s%s", self._saved[0], more)
        facts = self._position.facts
        best = best_of(Path(self._prefix)) if self._prefix else None
        if best and best.is_file() and "best_epoch" in facts:
            score = mean_text(facts["best_score"])
            logger.info("The snapshot of the best test, %s in epoch %d, is %s", score, facts["best_epoch"], best)
        if self.csv:
            logger.info("Statistics are in %s (%s)", self.csv.path, count(self.csv.rows, "new row"))
        if self._position.left and self._last:
            logger.info("Continue with: %s", resume_command(self._last, self._o.csv_file, self._prefix))

    def close(self) -> None:
        """Release the locks on the files' names."""
        for lock in reversed(self._locks):
            lock.close()

    def _continues(self, start: Start) -> bool:
        """Return whether this run writes the files that it starts from."""
        return self._prefix is not None and prefix_of(start.path).resolve() == Path(self._prefix).resolve()

    def _state(self, facts: dict[str, Any]) -> dict[str, Any]:
        parts, position = self._parts, self._position
        return dict(
            facts=facts,
            stage=position.next,
            then=position.after_random,
            under_way=position.under_way,
            agent=parts.agent.save_state(),
            games=parts.games.state(),
            memory=parts.memory.state(),
            network=parts.network.state(),
            statistics=parts.statistics.save_state(position.under_way),
        )

    def _rows_to_keep(self, start: Start | None) -> dict[str, Any]:
        """The arguments of `CSVFile` that say which rows of an earlier file this run continues."""
        if start and (ships(start.path) or start.renamed):
            return {}  # because an earlier CSV file of that name belongs to another run
        if start and start.checkpoint:
            phase, epoch = start.checkpoint.due
            stage = tuple(start.checkpoint.state["stage"])
            done_again = stage[0] != "train" or stage == self._position.next
            random_again = stage[0] == "random"
            return dict(keep=lambda rows: rows_before(rows, epoch, phase, random_again), repeated=int(done_again))
        if self._o.resume or self._o.start_epoch:
            steps = self._parts.agent.total_train_steps
            return dict(keep=lambda rows: rows_up_to(rows, steps))
        return {}

    def _warn_of_missing_rows(self, csv: CSVFile) -> None:
        epoch = self._position.epoch
        epochs = [row["epoch"] for row in csv.kept if row["phase"] == "train"]
        if self._o.resume and epochs and epoch and str(epoch) not in epochs:
            text = "%s lacks the rows of epoch %d. An earlier file, such as %s.1, may have them"
            logger.warning(text, csv.path, epoch, csv.path)

    def _move_older_run(self, prefix: Path, number: int, start: Start | None) -> None:
        """Move the files of an earlier run, or its epochs after the one that this run continues."""
        o, after = self._o, self._o.start_epoch or -1
        if start and o.resume:
            if self._continues(start) and start.named_epoch < 0:
                return  # because this run continues from the last epoch
            after = start.named_epoch if self._continues(start) else -1  # -1: because the files there are another run's
        folder = Path(f"{prefix}.{number}")
        moved = set_aside(prefix, folder, after)
        if moved:
            names = moved[0].name + (f" … ({len(moved)} files)" if len(moved) > 1 else "")
            logger.info("Moved an earlier run's %s to %s", names, folder)
            logger.info("Continue that run with: %s", resume_command(folder / prefix.name))

    def _restore_best(self, prefix: Path) -> None:
        """Copy the snapshot of the best test so far, because a later epoch's copy may be in its place, or none."""
        snapshot = Path(f"{prefix}_{self._position.facts.get('best_epoch')}.pkl")
        if snapshot.is_file():
            replace_file(best_of(prefix), snapshot.read_bytes())


def resume_command(snapshot: Path, csv_file: str | None = None, prefix: str | None = None) -> str:
    """Return the command that continues from a snapshot, or from a prefix, for a shell in the current folder.

    Args:
        snapshot: the snapshot or the prefix.
        csv_file: the statistics of the run that continues; None: those of the snapshot's name.
        prefix: of its snapshots; None: that of the snapshot.
    """
    script = here(ROOT / "resume.sh")
    words = [str(script) if script.is_absolute() else f"./{script}", str(snapshot)]
    default = prefix_to_continue(snapshot)
    if prefix and Path(prefix).resolve() != default.resolve():
        words += ["--save_weights_prefix", prefix]
        default = Path(prefix)
    if csv_file and csv_file != csv_file_of(default):
        words += ["--csv_file", csv_file]
    return shlex.join(words)


def _move_events(csv_file: Path, copy: Path) -> None:
    """Move the event files for TensorBoard of an earlier run beside the copy of its statistics."""
    folder, target = events_of(csv_file), events_of(copy)
    try:
        if folder.is_dir() and not target.exists():
            folder.rename(target)
    except OSError as error:
        raise OutputError(f"cannot move {folder} to {target}: {reason(error)}") from error
