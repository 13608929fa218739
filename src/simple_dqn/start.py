"""What a run starts from: a snapshot, for its weights, or a checkpoint, to go on as if nothing had happened."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from simple_dqn.checkpoint import Checkpoint, checkpoints_of, files_of, number_of, prefix_of, read_checkpoint
from simple_dqn.errors import CheckpointError, OptionError
from simple_dqn.snapshot import Snapshot, others, read_snapshot

logger = logging.getLogger(__name__)


class Start(NamedTuple):
    """What a run starts from."""

    path: Path  # of the snapshot or, if there is one, the checkpoint
    snapshot: Snapshot | None
    checkpoint: Checkpoint | None

    @property
    def facts(self) -> dict[str, Any]:
        """What it says of itself; nothing in a snapshot of another program."""
        if self.checkpoint:
            return dict(self.checkpoint.state["facts"])
        return self.snapshot.facts if self.snapshot else {}


def start_from_weights(path: Path) -> Start:
    """The snapshot `path`.

    Raises:
        SnapshotError: there is none, or it is damaged.
    """
    return Start(path, read_snapshot(path), None)


def start_where_it_stopped(path: Path) -> Start:
    """The checkpoint of the snapshot `path` or, if that is damaged, the last whole one before it; else the snapshot.

    `path` may also be what the names of a training's snapshots begin with, as in snapshots/pong: its last checkpoint.

    Raises:
        SnapshotError, OptionError: there is nothing to start from.
    """
    if not path.name:
        raise OptionError(f"--resume {path}: name a snapshot, or what the names of a training's snapshots begin with")
    bare = path.with_suffix("") if path.suffix in (".pkl", ".prm", ".checkpoint") else path
    prefix, number = prefix_of(Path(f"{bare}.pkl")), number_of(Path(f"{bare}.pkl"))
    if bare == path and number >= 0 and files_of(bare, "pkl"):  # a training whose label is a number
        if Path(f"{bare}.pkl").exists():
            raise OptionError(f"--resume {path} may be {path}.pkl or the last of {path}_*.pkl: name the file")
        prefix, number = bare, -1
    found = checkpoints_of(prefix)
    _warn_of_snapshots_without_checkpoints(prefix, found)
    if number >= 0:
        named = Path(f"{bare}.checkpoint")
        found = [named, *(p for p in found if number_of(p) < number)] if named in found else []
    for candidate in found:
        checkpoint = _whole(candidate)
        if checkpoint:
            return Start(candidate, None, checkpoint)
    if number < 0 and not path.is_file():
        bare = max(files_of(prefix, "pkl"), key=number_of, default=prefix).with_suffix("")
        if bare == prefix and path.is_dir():
            raise OptionError(f"--resume {path} is a folder: name a snapshot in it{others(path / 'any')}")
        if bare == prefix:
            raise OptionError(f"--resume {path}: there are no snapshots {prefix}_1.pkl and so on{others(prefix)}")
    return start_from_weights(path if path.is_file() and path.suffix != ".checkpoint" else Path(f"{bare}.pkl"))


def _warn_of_snapshots_without_checkpoints(prefix: Path, checkpoints: Sequence[Path]) -> None:
    """A later training of the same name may have kept no checkpoints."""
    newest = max(files_of(prefix, "pkl"), key=lambda path: path.stat().st_mtime_ns, default=None)
    if not newest or not checkpoints or newest.with_suffix(".checkpoint") in checkpoints:
        return
    if newest.stat().st_mtime_ns > checkpoints[0].stat().st_mtime_ns:
        logger.warning("%s is newer than the last checkpoint, %s, and has none", newest, checkpoints[0])


def _whole(path: Path) -> Checkpoint | None:
    try:
        return read_checkpoint(path)
    except CheckpointError as error:
        logger.warning("%s; looking for the one before", error)
        return None
