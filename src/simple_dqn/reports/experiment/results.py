"""The results of an experiment: results/NAME/ with its plan, and a CSV file and a record per run.

The engine of experiments writes experiment.json and RUN.json. The CSV files are enough: their names begin with the game
and end in the seed, as in pong_double_3.csv.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from simple_dqn.errors import StatisticsError, reason
from simple_dqn.games.roms import stem_of
from simple_dqn.reports import curves
from simple_dqn.reports.atari_scores import REFERENCE_SCORES, ReferenceScores
from simple_dqn.reports.figure import without_game
from simple_dqn.reports.table import Floats, NoRows, read_table
from simple_dqn.saving.files import in_use

_PLAN = {"games": list, "variants": dict, "seeds": list, "command": list, "options": list}


class RunResults(NamedTuple):
    """A run that was planned, or that left a CSV file."""

    name: str
    game: str
    variant: str
    seed: str  # empty if the name does not tell
    rows: curves.Run | None  # its CSV file, x in frames; None if there are no rows yet
    options: dict[str, Any]  # from its record or its newest snapshot; empty if there is none
    record: dict[str, Any]  # RUN.json

    @property
    def state(self) -> str:
        """complete, running, stopped, failed, not started; unknown without a record."""
        return str(self.record.get("state") or ("unknown" if self.rows else "not started"))

    @property
    def epoch(self) -> int:
        """The last epoch in the CSV file; 0 without one."""
        return int(self.rows.table.columns["epoch"].max()) if self.rows else 0

    @property
    def legs(self) -> list[dict[str, Any]]:
        """From each start to the next end: machine, hours, commit."""
        return [leg for leg in self.record.get("legs") or [] if isinstance(leg, dict)]

    @property
    def hours(self) -> float:
        """Hours of all legs; without a record, those of the CSV file."""
        if self.legs:
            hours = (leg.get("hours") for leg in self.legs)
            return sum(float(some) for some in hours if isinstance(some, int | float))
        times = self.rows.table.columns["total_time"] if self.rows else np.zeros(1)
        return float(np.nanmax(times, initial=0)) / 3600

    def facts(self, name: str) -> str:
        """Return the different values that the legs have for a fact."""
        return "; ".join(dict.fromkeys(str(leg[name]) for leg in self.legs if leg.get(name)))

    def scores(self, phase: str) -> Floats:
        """Return the average scores of the phase's rows, without those in which no game ended."""
        if not self.rows:
            return np.zeros(0)
        table = self.rows.table
        scores = table.columns["average_reward"][np.array(table.phases) == phase]
        return scores[np.isfinite(scores)]


class Experiment(NamedTuple):
    """All runs of an experiment."""

    name: str
    command: list[str]  # words after experiment.sh; empty if unknown
    words: dict[str, list[str]]  # the options that each variant was given; empty without a plan
    runs: list[RunResults]  # by game, variant and seed

    @property
    def games(self) -> list[str]:
        return list(dict.fromkeys(run.game for run in self.runs))

    @property
    def variants(self) -> list[str]:
        return list(dict.fromkeys(run.variant for run in self.runs))

    @property
    def phase(self) -> str:
        """The phase whose scores count: test, or train if nothing was tested."""
        return "test" if any(len(run.scores("test")) for run in self.runs) else "train"

    def select(self, game: str, variant: str) -> list[RunResults]:
        """Return the runs of a variant in a game that have rows."""
        return [run for run in self.runs if (run.game, run.variant) == (game, variant) and run.rows]

    def unfinished(self, run: RunResults) -> bool:
        """Return whether the run is not complete, or ends before others of its game if its state is unknown."""
        if run.state != "unknown":
            return run.state != "complete"
        return run.epoch < max(other.epoch for other in self.runs if other.game == run.game)

    def reference(self, game: str) -> ReferenceScores | None:
        """Return the scores of random play and of a human, if they are known."""
        run = next(run for run in self.runs if run.game == game)
        return REFERENCE_SCORES.get(curves.game_of_file(Path(f"{run.name}.csv")))


def read_experiment(name: str, folder: Path) -> Experiment:
    """Read results/NAME/ below `folder`.

    Raises:
        StatisticsError: there is no such experiment, it has no rows yet, or a file is damaged.
    """
    results = folder / "results" / name
    if not name or Path(name).name != name:
        raise StatisticsError(f"{name!r} is no name of an experiment: type the name alone, such as {Path(name).name}")
    if not results.is_dir():
        raise StatisticsError(f"there is no experiment {name}: {results} is missing{_others(results.parent)}")
    plan = _plan(results / "experiment.json")
    names = dict(_planned(plan))
    for path in sorted(results.glob("*.csv"), key=_natural):
        names.setdefault(path.stem, _parts(path))
    if not names:
        raise StatisticsError(f"{results} holds no statistics: an experiment has files such as pong_plain_1.csv there")
    running = in_use(str(results / "experiment"))
    runs = [_run(results / f"{run}.csv", *parts, running) for run, parts in names.items()]
    if not any(run.rows for run in runs):
        raise StatisticsError(f"{results} holds no rows yet: try again after the first epoch of a run")
    order = list(dict.fromkeys(run.game for run in runs)), list(dict.fromkeys(run.variant for run in runs))
    runs.sort(key=lambda run: (order[0].index(run.game), order[1].index(run.variant)))  # seeds keep their order
    words = {variant: [str(word) for word in words] for variant, words in plan.get("variants", {}).items()}
    return Experiment(name, [str(word) for word in plan.get("command", [])], words, runs)


def _others(results: Path) -> str:
    found = sorted(path.parent.name for path in results.glob("*/experiment.json"))
    return f"; there are {', '.join(found)}" if found else "; --folder says where results/ is"


def _plan(path: Path) -> dict[str, Any]:
    """Return the plan of the engine; {} if there is none."""
    plan = _read_json(path)
    for key, kind in _PLAN.items():
        if plan and not isinstance(plan.get(key), kind):
            raise StatisticsError(f"{path} is damaged: it has no valid {key}")
    return plan


def _read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file; {} if there is no file."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else "it is not JSON"
        raise StatisticsError(f"cannot read {path}: {why}") from None
    if not isinstance(content, dict):
        raise StatisticsError(f"cannot read {path}: it is not a JSON object")
    return content


def _planned(plan: dict[str, Any]) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """Yield name, game, variant and seed of each planned run."""
    for game in map(str, plan.get("games", [])):
        for variant, words in plan["variants"].items():
            name = stem_of(game, "gym" if "gym" in (*plan["options"], *words) else "ale")
            for seed in plan["seeds"]:
                yield f"{name}_{variant}_{seed}", (name, variant, str(seed))


def _parts(path: Path) -> tuple[str, str, str]:
    """Return game, variant and seed by a file's name."""
    with_seed = re.fullmatch(r"(.+?)_(?:seed)?(\d+)", path.stem)
    stem, seed = with_seed.groups() if with_seed else (path.stem, "")
    game = curves.game_of_file(path)
    return game or "unknown game", without_game(stem, game), seed


def _natural(path: Path) -> list[Any]:
    """Return a key that sorts seed 2 before seed 10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.stem)]


def _run(path: Path, game: str, variant: str, seed: str, running: bool) -> RunResults:
    record = _read_json(path.with_suffix(".json"))
    if record.get("state") == "running" and not running:
        record["state"] = "stopped"  # because it was killed with the experiment
    options = record.get("options") or curves.recorded_options(path)
    options = options if isinstance(options, dict) else {}
    try:
        table = read_table(path, 1, ",", ["average_reward", "total_train_steps", "total_time"])
        rows = curves.run_of(table, "frames", curves.frames_of(options))
    except NoRows:
        rows = None
    return RunResults(path.stem, game, variant, seed, rows, options, record)


# Options


def differing(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are not at their default, without game and seed."""
    changed = {name: value for name, value in options.items() if name not in defaults or value != defaults[name]}
    return {name: value for name, value in changed.items() if name not in ("game", "random_seed")}


def common(several: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the options that all have, with equal values."""
    first, *others = several
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}
