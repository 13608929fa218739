"""Names of a training's files: PREFIX_EPOCH.pkl and .checkpoint, PREFIX_TRANSITIONS.replay, PREFIX_best.pkl."""

from __future__ import annotations

import re
from pathlib import Path

SNAPSHOT_KINDS = (".pkl", ".prm")


def prefix_of(path: Path) -> Path:
    """Return the prefix of a training's file: snapshots/pong for snapshots/pong_10.pkl and snapshots/pong_best.pkl."""
    return path.with_name(re.sub(r"(?<=.)_(\d+|best)$", "", path.stem))


def trainings_in(folder: Path) -> list[str]:
    """Return the names of the trainings with snapshots in `folder`: pong for pong_1.pkl and pong_best.pkl."""
    return sorted({prefix_of(path).name for path in folder.glob("*") if path.suffix in SNAPSHOT_KINDS})


def best_of(prefix: Path) -> Path:
    """Return the file for the snapshot of the best test."""
    return Path(f"{prefix}_best.pkl")


def files_of(prefix: Path, kind: str) -> list[Path]:
    """The files PREFIX_NUMBER.kind, in no order."""
    pattern = re.compile(re.escape(prefix.name) + rf"_\d+\.{kind}")
    return [path for path in prefix.parent.glob(f"*.{kind}") if pattern.fullmatch(path.name)]


def number_of(path: Path) -> int:
    """The epoch in the name of a snapshot or checkpoint; -1 if there is none."""
    name = re.fullmatch(r".*_(\d+)", path.stem)
    return int(name[1]) if name else -1
