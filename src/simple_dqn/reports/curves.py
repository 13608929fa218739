"""Learning curves as numbers: values on the x axis, runs that differ by their seed, means, and pieced-together runs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from simple_dqn.errors import SnapshotError, StatisticsError
from simple_dqn.reports.table import Floats, Table
from simple_dqn.saving.names import files_of, number_of

# What stands on the x axis, and the column that it is computed from.
AXES = {"epoch": "epoch", "steps": "total_train_steps", "frames": "total_train_steps", "hours": "total_time"}
GROUPINGS = ("seed", "name", "folder", "none")  # what files of one experiment have in common; see `grouped`
FRAME_SKIP = 4  # frames per step if no snapshot tells
_SEED = re.compile(r"(.+?)[_-](?:s|seed)?[_-]?\d+", re.IGNORECASE)  # pong_slow_1, pong-2, pong_seed3, pong_s4
_LIMIT = 1e100  # larger values are left out, because matplotlib cannot choose ticks for them


class Run(NamedTuple):
    """A file, with the place of each of its rows on the x axis."""

    table: Table
    x: Floats


class Group(NamedTuple):
    """The runs of an experiment, of which the mean is drawn; often only one."""

    path: Path  # what they have in common: a file, its name without the seed, or a folder
    game: str  # empty if the file's name does not tell
    runs: list[Run]


class Curve(NamedTuple):
    """The values of a phase."""

    x: Floats
    y: Floats
    raw: Floats  # before smoothing
    error: Floats  # standard error of the mean; nan if there is only one run


# The x axis


def run_of(table: Table, axis: str, frames: int = FRAME_SKIP) -> Run:
    """Place the rows of a file on the x axis.

    Args:
        table: the file.
        axis: one of `AXES`.
        frames: per step, as `frames_per_step` returns them.

    Raises:
        StatisticsError: the file lacks the column that the axis needs.
    """
    values = _column(table, AXES[axis])
    if np.isnan(values).all():
        raise StatisticsError(f"--x {axis}: {table.path} has no column {AXES[axis]}; use --x epoch")
    if axis == "frames":
        with np.errstate(over="ignore"):  # of a damaged file
            values = values * frames
    return Run(table, _hours(values) if axis == "hours" else values)


def _hours(seconds: Floats) -> Floats:
    """Return hours since the start. If the time goes back, another training began at 0: its time is added."""
    hours, earlier, before = [], 0.0, 0.0
    for time in seconds:
        if time < before:
            earlier += before
        hours.append((earlier + time) / 3600)
        before = before if math.isnan(time) else time
    return np.array(hours)


def frames_per_step(path: Path) -> int:
    """Return the frames of a step of the training in results/NAME.csv, by its last snapshot; if none, 4."""
    return frames_of(recorded_options(path))


def frames_of(recorded: Mapping[str, Any]) -> int:
    """Return the frames of a step by the options of a run; 4 if they do not tell."""
    if recorded.get("environment") == "gym":
        return 1
    skip = recorded.get("frame_skip")
    return skip if isinstance(skip, int) else FRAME_SKIP


def recorded_options(path: Path) -> dict[str, Any]:
    """Return the options that the last snapshot of results/NAME.csv, snapshots/NAME_N.pkl, records; {} if none.

    The snapshots of results/NAME.csv.1, which an earlier run left, are snapshots/NAME.1/NAME_N.pkl.
    """
    from simple_dqn.saving.snapshot import read_snapshot  # not needed for other axes

    folder = Path(re.sub(r"(.*/)results(?=/|$)", r"\1snapshots", str(path.absolute().parent)))
    moved = re.fullmatch(r"(.+)\.csv((?:\.\d+)+)", path.name)
    name, numbers = moved.groups() if moved else (path.stem, "")
    for number in numbers.split(".")[1:]:
        folder /= f"{name}.{number}"
    snapshots = files_of(folder / name, "pkl")
    try:
        return read_snapshot(max(snapshots, key=number_of)).facts.get("options", {}) if snapshots else {}
    except SnapshotError:  # it does not matter to the curves
        return {}


# Games and seeds


def game_of_file(path: Path) -> str:
    """Return the game that a file's name begins with, as ale-py spells it, or an environment's id; empty if none."""
    from ale_py import roms

    from simple_dqn.games.roms import game_of

    stem = re.sub(r"\.\w+(\.\d+)*$", "", path.name)  # also of pong.csv.1
    environment = re.match(r"(.+)-v\d+(?=_|$)", stem)
    name = (
        re.sub("NoFrameskip$|Deterministic$", "", environment[1])
        if environment
        else game_of(stem.lower().replace("-", "_"))
    )
    games = {game.replace("_", ""): game for game in roms.get_all_rom_ids()}  # SpaceInvaders-v5 is space_invaders
    return games.get(name.lower().replace("_", "")) or (environment[0] if environment else "")


def grouped(runs: Sequence[Run], by: str, games: Sequence[str]) -> list[Group]:
    """Collect the runs of each experiment.

    Args:
        runs: of the files.
        by: what the files of an experiment have in common. seed: name and folder, except for a number at the end of
            the name, and the length of the epochs. name: their name. folder: their folder. none: nothing, each is
            alone.
        games: one per run. Runs of different games are never of one experiment.

    Raises:
        StatisticsError: files of one name or folder have no mean, because their epochs have different lengths.
    """
    groups: dict[object, Group] = {}
    files = {run.table.path for run in runs}
    for run, game in zip(runs, games, strict=True):
        path, first = run.table.path, _first_epoch(run.table)
        seed = _SEED.fullmatch(path.stem)
        without_seed = path.with_name(seed[1] + path.suffix) if seed else path
        if seed and without_seed in files:  # that file is of another experiment
            without_seed = path.with_name(f"{seed[1]}_*{path.suffix}")
        common = {
            "seed": without_seed,
            "name": Path(path.name),
            "folder": path.absolute().parent,
            "none": path,
        }[by]
        group = groups.setdefault((common, game, first if by == "seed" else None), Group(common, game, []))
        if group.runs and _first_epoch(group.runs[0].table) != first:
            raise StatisticsError(
                f"--group {by}: {group.runs[0].table.path} and {path} have no mean, because their epochs have "
                "different lengths or numbers; use --group none"
            )
        group.runs.append(run)
    alone = {id(group): group.runs[0].table.path for group in groups.values() if len(group.runs) == 1}
    return [group._replace(path=alone.get(id(group), group.path)) for group in groups.values()]


def _first_epoch(table: Table) -> tuple[float, float] | None:
    """Return number and training steps of the first epoch; None if nothing was trained."""
    trained = np.flatnonzero(np.array(table.phases) == "train")
    if not len(trained):
        return None
    return table.columns["epoch"][trained[0]], float(np.nan_to_num(_column(table, "total_train_steps")[trained[0]]))


# Curves


def curve_of(group: Group, field: str, phase: str, smooth: int = 1) -> Curve:
    """Return the values of a phase, or of several runs the mean per epoch. nan stands for missing values.

    Args:
        group: the runs. An epoch's mean is over those that have a value for it.
        field: column.
        phase: one of the table's.
        smooth: number of epochs, around its own, of which each value is the mean.
    """
    if len(group.runs) == 1:
        _, x, raw = _values(group.runs[0], field, phase)
        y = _smoothed(raw, smooth)
        return Curve(x, y, raw, np.full(len(y), np.nan))
    all_x, all_raw = by_epoch(group.runs, field, phase)
    all_y = np.array([_smoothed(raw, smooth) for raw in all_raw])
    return Curve(mean_places(all_x), mean_of(all_y), mean_of(all_raw), _standard_error(all_y))


def by_epoch(runs: Sequence[Run], field: str, phase: str) -> tuple[Floats, Floats]:
    """Return x and values of a phase, (runs, epochs). nan stands for epochs that a run lacks."""
    parts = [_values(run, field, phase) for run in runs]
    epochs = np.unique(np.concatenate([part[0] for part in parts]))
    shape = (len(parts), len(epochs))
    all_x, all_raw = np.full(shape, np.nan), np.full(shape, np.nan)
    for i, (when, x, raw) in enumerate(parts):
        places = np.searchsorted(epochs, when)
        all_x[i, places], all_raw[i, places] = x, raw
    return all_x, all_raw


def mean_places(all_x: Floats) -> Floats:
    """Return the mean places of epochs on the x axis, of places (runs, epochs).

    If runs lack epochs, the mean is of the distances from epoch to epoch. A mean of the places would go back in time
    where a slow run ends before the others. Epochs that a run lacks in its middle are at equal distances.
    """
    means = mean_of(all_x)
    if np.isfinite(all_x).all() or not np.isfinite(means).all():
        return means
    epochs = np.arange(all_x.shape[1])
    known = [np.isfinite(row) for row in all_x]
    rows = [
        np.interp(epochs, epochs[there], row[there], np.nan, np.nan)
        for row, there in zip(all_x, known, strict=True)
        if there.any()
    ]
    distances = mean_of(np.diff(rows, axis=1))
    return np.cumsum([means[0], *np.where(np.isfinite(distances), distances, np.diff(means))])


def _values(run: Run, field: str, phase: str) -> tuple[Floats, Floats, Floats]:
    """Return epochs, x and values of a phase's rows."""
    table = run.table
    rows = np.array(table.phases) == phase
    values = table.columns[field][rows]
    values = np.where(np.abs(values) < _LIMIT, values, np.nan)
    if field == "meancost":  # because 0 means that the phase had no weight updates
        values[values == 0] = np.nan
    return table.columns["epoch"][rows], run.x[rows], values


def _smoothed(values: Floats, n: int) -> Floats:
    """Return the mean of the n values around each, or of those that are there; nan stays."""
    starts = range(-(n // 2), len(values) - n // 2)
    windows = [values[max(0, start) : start + n] for start in starts]
    means = [mean_of(window[:, None])[0] for window in windows] if n > 1 else values
    return np.where(np.isnan(values), np.nan, means)


def mean_of(values: Floats) -> Floats:
    """Return the means over the first axis of what is not nan."""
    counts = np.isfinite(values).sum(axis=0)
    return np.where(counts > 0, np.nansum(values, axis=0) / np.maximum(counts, 1), np.nan)


def _standard_error(values: Floats) -> Floats:
    """Return the standard errors of these means: s / √n, nan where n is 1."""
    counts = np.isfinite(values).sum(axis=0)
    squares = np.nansum((values - mean_of(values)) ** 2, axis=0)
    return np.where(counts > 1, np.sqrt(squares / np.maximum(counts - 1, 1) / np.maximum(counts, 1)), np.nan)


def run_counts(group: Group) -> tuple[int, int]:
    """Return the smallest and the largest number of runs that an epoch's mean is over."""
    epochs = [set(run.table.columns["epoch"]) for run in group.runs]
    counts = [sum(epoch in some for some in epochs) for epoch in set().union(*epochs)]
    return min(counts), max(counts)


def seams_of(group: Group) -> list[float]:
    """Return the places on the x axis where one training was continued by another, or with other options.

    The rows of the training phases tell: random moves come between them, the number of training steps does not grow by
    the steps of the phase, the time goes back, or the epochs change their length. The last epoch may be unfinished.
    """
    return sorted({x for run in group.runs for x in _seams(run)})


def _seams(run: Run) -> list[float]:
    table = run.table
    epoch, steps, total, time = (_column(table, name) for name in ("epoch", "steps", "total_train_steps", "total_time"))
    trained = [i for i, phase in enumerate(table.phases) if phase == "train"]
    seams = [run.x[i] for i in trained[:1] if total[i] - steps[i] > 1]  # a training with --start_epoch
    length = steps[trained[0]] if trained else 0.0
    for before, i in pairwise(trained):
        epochs = max(1, epoch[i] - epoch[before])  # more than one if rows are missing
        length_before, length = length, (total[i] - total[before]) / epochs
        if (
            "random" in table.phases[before:i]
            or abs(length - steps[i]) > 1
            or (abs(length - length_before) > 1 and i != trained[-1])
            or time[i] < time[before]
        ):
            last = max(j for j in range(before, i) if table.phases[j] != "random")  # that is of epoch 0 again
            seams.append((run.x[last] + run.x[i]) / 2)
    return [float(x) for x in seams if math.isfinite(x)]


def _column(table: Table, name: str) -> Floats:
    return table.columns.get(name, np.full(len(table.phases), np.nan))
