"""Find what a run starts from: a snapshot, for its weights, or a checkpoint, to continue exactly."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from simple_dqn.errors import CheckpointError, OptionError, SnapshotError
from simple_dqn.games.roms import name_of_game, stem_of
from simple_dqn.saving.checkpoint import Checkpoint, checkpoints_of, read_checkpoint
from simple_dqn.saving.files import PRETRAINED, ROOT, here
from simple_dqn.saving.names import files_of, number_of, prefix_of, trainings_in
from simple_dqn.saving.snapshot import Snapshot, other_snapshots_hint, read_snapshot

logger = logging.getLogger(__name__)

_SNAPSHOTS = Path("snapshots")
_SHIPPED = ROOT / "snapshots" / PRETRAINED
_ROMS = (".bin", ".a26", ".rom")


class Start(NamedTuple):
    """What a run starts from."""

    path: Path  # of the snapshot or, if there is one, the checkpoint
    snapshot: Snapshot | None
    checkpoint: Checkpoint | None
    named_epoch: int = -1  # the epoch that --resume names; -1: the last
    renamed: bool = False  # whether the run has another name than this one, and a CSV file of that name

    @property
    def facts(self) -> dict[str, Any]:
        """Options, counters and scores that it records. Empty in a snapshot of another program."""
        if self.checkpoint:
            return dict(self.checkpoint.state["facts"])
        return self.snapshot.facts if self.snapshot else {}


def start_from_weights(path: Path) -> Start:
    """Return the snapshot that `path` names (see `find_snapshot`).

    Raises:
        SnapshotError, OptionError: there is none, or it is damaged.
    """
    path = find_snapshot(path)
    return Start(path, read_snapshot(path), None)


def find_snapshot(path: Path) -> Path:
    """Return the snapshot that `path` names.

    `path` is a file, or the beginning of snapshots' names (snapshots/pong), which means the newest of them. The name of
    a game (pong) or a training (pong_slow), a ROM file, or an environment's id means the newest snapshot of that name
    in ./snapshots. If there is none, it means the one that ships.

    Raises:
        SnapshotError, OptionError: there is none, or the name is ambiguous.
    """
    rom = path.suffix.lower() in _ROMS
    if path.is_file() and not rom:
        return path
    bare = rom or path.parent == Path() or not path.parent.is_dir()
    name = path.stem if rom else stem_of(str(path), "gym")
    names = dict.fromkeys((name, name_of_game(name))) if bare else ()  # also Pong for pong
    prefixes = ([] if rom else [path]) + [folder / name for folder in (_SNAPSHOTS, here(_SHIPPED)) for name in names]
    for prefix in prefixes:
        found = _newest(prefix)
        if found:
            why = "the newest of its name"
            if found.is_relative_to(here(_SHIPPED)):
                why = f"which ships with this program ({_SNAPSHOTS} has none of that name)"
            logger.info("%s: using %s, %s", path, found, why)
            return found
    what = f"{path} is a folder, not a snapshot" if path.is_dir() else f"there is no snapshot {path}"
    raise SnapshotError(f"{what}{_known_names(name) if bare else other_snapshots_hint(path)}{_shipped_hint(path)}")


def _shipped_hint(path: Path) -> str:
    found = here(_SHIPPED) / path.name
    return f"; {found} ships with this program" if path.suffix and found.is_file() else ""


def _newest(prefix: Path) -> Path | None:
    """Return the snapshot `prefix`, with or without .pkl, or the newest of PREFIX_1.pkl and so on."""
    numbered = [path for kind in ("pkl", "prm") for path in files_of(prefix, kind)]
    for path in (prefix, Path(f"{prefix}.pkl")):
        if path.is_file():
            if numbered:
                raise OptionError(f"{prefix} may be {path} or the newest of {prefix}_*.pkl: name the file")
            return path
    return max(numbered, key=lambda path: (path.stat().st_mtime_ns, number_of(path)), default=None)


def _known_names(wanted: str, *, shipped: bool = True) -> str:
    """Return the end of an error: the name that is close to `wanted`, or all that mean a snapshot, if any."""
    saved, ships = trainings_in(_SNAPSHOTS), trainings_in(_SHIPPED) if shipped else []
    close = difflib.get_close_matches(name_of_game(wanted), [*saved, *ships], n=1, cutoff=0.75)
    if close:
        return f": did you mean {close[0]}?"
    words = [f"in {_SNAPSHOTS} are {', '.join(saved)}"] if saved else []
    words += [f"this program ships {', '.join(ships)}"] if ships else []
    return f": {'; '.join(words)}" if words else ""


def start_where_it_stopped(path: Path) -> Start:
    """Return the checkpoint of the snapshot `path`, or the last complete one before it. If there is none: the snapshot.

    `path` may also be a prefix, such as snapshots/pong. It means the last checkpoint of that training. A name that is
    not in the current folder is looked up in ./snapshots, but not among the snapshots that come with this program.

    Raises:
        SnapshotError, OptionError: there is nothing to start from.
    """
    if not path.name:
        raise OptionError(f"--resume {path}: name a snapshot, or a prefix such as snapshots/pong")
    if path.parent == Path() and not _saved(path) and _saved(_SNAPSHOTS / path):
        path = _SNAPSHOTS / path
    bare = path.with_suffix("") if path.suffix in (".pkl", ".prm", ".checkpoint") else path
    prefix, number = prefix_of(Path(f"{bare}.pkl")), number_of(Path(f"{bare}.pkl"))
    if bare == path and prefix != bare and files_of(bare, "pkl"):  # a training whose label is a number, or best
        if Path(f"{bare}.pkl").exists():
            raise OptionError(f"--resume {path} may be {path}.pkl or the last of {path}_*.pkl: name the file")
        prefix, number = bare, -1
    found = checkpoints_of(prefix)
    _warn_of_snapshots_without_checkpoints(prefix, found)
    if number >= 0:
        named = Path(f"{bare}.checkpoint")
        found = [named, *(p for p in found if number_of(p) < number)] if named in found else []
    for candidate in found:
        checkpoint = _read_if_complete(candidate)
        if checkpoint:
            return Start(candidate, None, checkpoint, number)
    if number < 0 and not path.is_file():
        last = max(files_of(prefix, "pkl"), key=number_of, default=None)
        if not last and path.is_dir():
            raise OptionError(f"--resume {path} is a folder, not a snapshot{other_snapshots_hint(path)}")
        if not last:
            ships = _newest(here(_SHIPPED) / prefix.name)
            names = _known_names(prefix.name, shipped=False) if path.parent == Path() else other_snapshots_hint(path)
            raise OptionError(
                f"--resume {path}: there are no snapshots {prefix}_1.pkl and so on{names}"
                + (f"; {ships} ships with this program" if ships else "")
            )
        bare = last.with_suffix("")
    path = path if path.is_file() and path.suffix != ".checkpoint" else Path(f"{bare}.pkl")
    return Start(path, read_snapshot(path), None, number)


def named_by_epoch(path: Path) -> Path:
    """Return PREFIX_N.pkl for PREFIX_best.pkl, which is a copy of it, because a training continues from an epoch.

    Any other path stays as it is, and so does the prefix of a training with the label best.
    """
    file = path if path.suffix == ".pkl" else Path(f"{path}.pkl")
    if path.parent == Path() and not _saved(path):
        file = _SNAPSHOTS / file
    if not file.is_file() or not file.stem.endswith("_best") or (path.suffix != ".pkl" and files_of(path, "pkl")):
        return path
    epoch = read_snapshot(file).facts.get("best_epoch")
    return path if epoch is None else file.with_name(f"{prefix_of(file).name}_{epoch}.pkl")


def _saved(path: Path) -> bool:
    """Return whether `path` is a file, or the beginning of saved files' names."""
    numbered = (file for kind in ("pkl", "prm", "checkpoint") for file in files_of(path, kind))
    return path.is_file() or Path(f"{path}.pkl").is_file() or any(numbered)


def _warn_of_snapshots_without_checkpoints(prefix: Path, checkpoints: Sequence[Path]) -> None:
    """Warn of a snapshot that is newer than the last checkpoint, because a later training may have kept none."""
    newest = max(files_of(prefix, "pkl"), key=lambda path: path.stat().st_mtime_ns, default=None)
    if not newest or not checkpoints or newest.with_suffix(".checkpoint") in checkpoints:
        return
    if newest.stat().st_mtime_ns > checkpoints[0].stat().st_mtime_ns:
        logger.warning("%s is newer than the last checkpoint, %s, and has none", newest, checkpoints[0])


def _read_if_complete(path: Path) -> Checkpoint | None:
    try:
        return read_checkpoint(path)
    except CheckpointError as error:
        logger.warning("%s; looking for the one before", error)
        return None
