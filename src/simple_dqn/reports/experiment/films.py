"""Films of the best runs: a game of the snapshot with the best test, as `record.sh` films it, small for the page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from simple_dqn.reports.experiment.results import RunResults
from simple_dqn.saving.files import ROOT
from simple_dqn.watching.film import small_film
from simple_dqn.wording import last_line

_SECONDS = 30  # of the game, so that the page stays small


class Film(NamedTuple):
    """A film, or why there is none."""

    path: Path
    content: bytes  # small; empty if there is none
    why: str


def film_of(run: RunResults, experiment: str, folder: Path, best_epoch: int) -> Film:
    """Film a game of a run's best snapshot as videos/NAME/RUN_best.mp4.

    A film that is as new as the snapshot is kept, and one whose snapshot is gone.
    """
    path = folder / "videos" / experiment / f"{run.name}_best.mp4"
    prefix = folder / "snapshots" / experiment / run.name
    candidates = [prefix.with_name(f"{run.name}_{which}.pkl") for which in ("best", best_epoch)]
    snapshot = next(filter(Path.is_file, candidates), None)
    if not snapshot and not path.is_file():
        return Film(path, b"", f"no film, because there is no snapshot {candidates[0]}")
    if snapshot and (not path.is_file() or path.stat().st_mtime < snapshot.stat().st_mtime):
        files = ["--load_weights", str(snapshot.resolve()), "--video_file", str(path.resolve())]
        words = [*files, "--random_seed", run.seed or "1"]
        words += ["--play_games", "1", "--max_game_seconds", str(_SECONDS), "--backend", "cpu"]
        command = [sys.executable, str(ROOT / "src" / "main.py"), *words]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
        if result.returncode:
            why = last_line(result.stderr, f"exit status {result.returncode}")
            return Film(path, b"", f"no film: {why}")
    return Film(path, small_film(path), "")
