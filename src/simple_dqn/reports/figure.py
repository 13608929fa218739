"""The picture of learning curves, and the settings of all pictures.

A figure has a panel per game and field, and a panel has a curve per phase and experiment.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import math
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from simple_dqn.reports.atari_scores import REFERENCE_SCORES
from simple_dqn.reports.curves import Curve, Group, curve_of, run_counts, seams_of
from simple_dqn.reports.table import SCORES, Floats

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf", "jpg", "webp")
_MANY = 40  # more markers would hide the curve
_FAR = 2.5  # heights of the panel that a line may lie from its middle
_ROW = 2.5  # inches that a row of panels needs
MAX_PIXELS = 2**15 - 1  # of a side, because matplotlib draws no more


class FigureSpec(NamedTuple):
    """What a figure shows."""

    fields: Sequence[str]  # columns, one panel each
    axis: str = "epoch"  # one of `AXES`
    x_label: str = "epoch"
    smooth: int = 1  # epochs of which each value is the mean
    references: bool = False  # lines at the scores of random play and of a human
    theme: str = "light"


class Field(NamedTuple):
    """Title and unit of a column."""

    title: str
    unit: str


_FIELDS = {
    "steps": Field("Steps", "steps per phase"),
    "nr_games": Field("Games played", "games per phase"),
    "average_reward": Field("Average score", "points per game"),
    "min_game_reward": Field("Lowest score", "points"),
    "max_game_reward": Field("Highest score", "points"),
    "last_exploration_rate": Field("Exploration rate", "probability of a random action"),
    "total_train_steps": Field("Training steps", "steps since the start"),
    "replay_memory_count": Field("Replay memory", "transitions"),
    "meanq": Field("Average maximum Q", "discounted reward"),
    "meancost": Field("Training loss", "halved squared error"),
    "weight_updates": Field("Weight updates", "updates since the start"),
    "total_time": Field("Time since the start", "seconds"),
    "epoch_time": Field("Time of the phase", "seconds"),
    "steps_per_second": Field("Speed", "steps per second"),
}


class Phase(NamedTuple):
    """Label and line of a phase."""

    label: str
    style: Literal["solid"] | tuple[float, tuple[float, ...]]  # dashes and gaps, in line widths
    width: float  # points
    baseline: bool  # one row before all epochs: a level to compare with


_PHASES = {
    "random": Phase("random moves", (0, (1, 1.5)), 1.6, True),
    "play": Phase("playing", (0, (6, 2, 1, 2)), 1.6, True),
    "train": Phase("training", (0, (4, 1.5)), 1.4, False),
    "test": Phase("testing", "solid", 2.2, False),
}


class Theme(NamedTuple):
    """Colours that people with any colour vision can distinguish from each other and from the background."""

    paper: str
    ink: str
    grid: str
    phases: dict[str, str]  # in the figure of a single experiment
    experiments: tuple[str, ...]  # in the figure of several


# The first two follow Okabe and Ito (https://jfly.uni-koeln.de/color/). A search chose the others, with the greatest
# distance for people without red, green or blue cones. A test simulates these.
THEMES = {
    "light": Theme(
        "#ffffff", "#1c1c1e", "#dcdce0",
        {"random": "#6b6b70", "play": "#661166", "train": "#c75000", "test": "#0072b2"},
        ("#0072b2", "#c75000", "#448855", "#8833ee", "#661166", "#1c1c1e"),
    ),
    "dark": Theme(
        "#161618", "#ececee", "#3a3a40",
        {"random": "#a9a9b0", "play": "#ffff22", "train": "#e69f00", "test": "#56b4e9"},
        ("#56b4e9", "#e69f00", "#aadd77", "#aa77ff", "#ffff22", "#ececee"),
    ),
}  # fmt: skip
_MARKERS = "osD^vP"
_SEAM: dict[str, Any] = dict(linestyle=(0, (1, 3)), linewidth=1.4)


def picture(
    groups: Sequence[Group], spec: FigureSpec, kind: str, width: float, height: float | None, dpi: int
) -> bytes:
    """Return the picture, in a format of `FORMATS`.

    Args:
        groups: the experiments.
        spec: what it shows of them.
        kind: its format.
        width, height: inches. None: 9, or more if there are many rows of panels.
        dpi: pixels per inch.
    """
    if height is None:
        height = min(max(9, _ROW * _grid(len(_games(groups)), len(spec.fields))[0]), MAX_PIXELS / dpi)
    with drawing(spec.theme):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
        draw(figure, groups, spec)
        # No date, because equal files make equal pictures.
        metadata = {"Date": None} if kind == "svg" else {"CreationDate": None} if kind == "pdf" else None
        data = io.BytesIO()
        figure.savefig(data, format=kind, metadata=metadata)
    return data.getvalue()


@contextlib.contextmanager
def drawing(theme: str) -> Iterator[None]:
    """Draw with the settings of a theme. Import matplotlib only inside."""
    matplotlib = _import_matplotlib()
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_settings(THEMES[theme]))
        # No warnings: the user sees that a figure is too small, or that the font lacks a letter.
        warnings.simplefilter("ignore", UserWarning)
        yield


def _import_matplotlib() -> Any:
    """Import matplotlib without the user's settings, because these may require a notebook or LaTeX.

    Its import reads settings in the current folder, so this happens in the folder of its defaults.
    """
    if "matplotlib" in sys.modules:
        return sys.modules["matplotlib"]
    found = importlib.util.find_spec("matplotlib")
    assert found
    assert found.origin
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # for example: it cannot save its list of fonts
    here, backend = Path.cwd(), os.environ.pop("MPLBACKEND", None)
    os.chdir(Path(found.origin).parent / "mpl-data")
    try:
        import matplotlib
    finally:
        os.chdir(here)
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    return matplotlib


def _settings(theme: Theme) -> dict[Any, Any]:
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    return dict.fromkeys(inked, theme.ink) | {
        "figure.facecolor": theme.paper,
        "savefig.facecolor": theme.paper,
        "axes.facecolor": theme.paper,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.formatter.limits": (-5, 10),  # 1234567, not 1.23 with 1e6 in a corner
        "axes.formatter.useoffset": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 14,
        "axes.labelsize": 11,
        "figure.constrained_layout.hspace": 0.05,
        "figure.constrained_layout.wspace": 0.04,
        "grid.color": theme.grid,
        "legend.fontsize": 11,
        "legend.frameon": False,
        "lines.markersize": 4.5,
        "font.size": 11,
        "text.parse_math": False,  # a file's name may hold dollars
        "svg.hashsalt": "simple_dqn",
        "svg.fonttype": "none",  # text stays text, for search and screen readers
    }


# The figure


def draw(figure: Figure, groups: Sequence[Group], spec: FigureSpec) -> None:
    """Draw a panel for each game and field into an empty figure and, below them, the legend."""
    games, labels = _games(groups), _labels(groups)
    looks = list(dict.fromkeys(labels))  # the labels that have colours of their own
    rows, columns = _grid(len(games), len(spec.fields))
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    wanted = [(game, field) for game in games for field in spec.fields]
    for panel, (game, field) in zip(panels, wanted, strict=False):
        shown = [i for i, group in enumerate(groups) if len(games) == 1 or group.game == game]
        _draw_panel(panel, field, [groups[i] for i in shown], [labels[i] for i in shown], looks, spec, columns)
        if len(games) > 1:
            panel.set_title(f"{game or 'other'}: {panel.get_title()}", fontsize=11)
    for panel in panels[len(wanted) :]:
        panel.remove()
    title = f"Learning curves of {labels[0]}" if len(groups) == 1 else "Learning curves"
    figure.suptitle(title, fontsize=min(17, 110 * figure.get_figwidth() / len(title)))  # as large as there is room
    lines, texts = _legend(groups, labels, spec)
    widest = max(map(len, texts)) / 11 + 0.8  # inches, roughly
    columns = max(1, min(len(texts), int(figure.get_figwidth() / widest)))
    figure.legend(lines, texts, loc="outside lower center", ncols=columns)


def _games(groups: Sequence[Group]) -> list[str]:
    """Return the games that get panels of their own; one if only one is known."""
    games = list(dict.fromkeys(group.game for group in groups))
    return games if len(set(games) - {""}) > 1 else [next(filter(None, games), "")]


def _grid(games: int, fields: int) -> tuple[int, int]:
    """Return the numbers of rows and columns of panels. If there are several of both, each game has a row."""
    if games > 1 and fields > 1:
        return games, fields
    columns = math.ceil(math.sqrt(games * fields))
    return math.ceil(games * fields / columns), columns


def _draw_panel(
    panel: Axes, field: str, groups: Sequence[Group], labels: Sequence[str], looks: Sequence[str], spec: FigureSpec,
    columns: int,
) -> None:  # fmt: skip
    from matplotlib.ticker import EngFormatter, MaxNLocator

    theme = THEMES[spec.theme]
    title, unit = _FIELDS.get(field, Field(field, ""))
    panel.set_title(title)
    panel.set_xlabel(spec.x_label)
    panel.set_ylabel(unit)
    panel.xaxis.set_major_locator(MaxNLocator("auto", integer=spec.axis != "hours", min_n_ticks=1))
    if spec.axis in ("steps", "frames"):
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))  # 500k, 2M
    empty = True
    for group, label in zip(groups, labels, strict=True):
        number = looks.index(label)
        for name, phase in reversed(_phases(group)):  # thin lines over thick ones, because those would hide them
            curve = curve_of(group, field, name, 1 if phase.baseline else spec.smooth)
            if np.isfinite(curve.y).any():
                empty = False
                style = look(name, number, len(looks), theme)
                marked = _marked(curve.y, len(looks) > 1, 2 * _MANY // max(2, columns))
                _draw_curve(panel, curve, phase, style | {"markevery": marked})
        colour = theme.experiments[number % len(theme.experiments)] if len(looks) > 1 else theme.ink
        for x in seams_of(group):  # those of several experiments would hide the curves
            panel.axvline(x, ymax=0.08 if len(looks) > 1 else 1, color=colour, zorder=1, **_SEAM)
    if empty:
        why = "no game has ended yet" if field in SCORES else "no values"
        panel.text(0.5, 0.5, why, transform=panel.transAxes, ha="center", va="center")
    if spec.references and field == "average_reward":
        _draw_references(panel, groups[0].game, theme)


def _draw_curve(panel: Axes, curve: Curve, phase: Phase, look: dict[str, Any]) -> None:
    if phase.baseline:
        panel.axhline(curve.y[np.isfinite(curve.y)][0], **look | {"marker": "", "markevery": None})
        return
    if not np.array_equal(curve.raw, curve.y, equal_nan=True):
        panel.plot(curve.x, curve.raw, **look | {"marker": "", "markevery": None, "linewidth": 1, "alpha": 0.35})
    if np.isfinite(curve.error).any():
        low, high = curve.y - curve.error, curve.y + curve.error
        panel.fill_between(curve.x, low, high, color=look["color"], alpha=0.2, linewidth=0)
    panel.plot(curve.x, curve.y, **look)


def _draw_references(panel: Axes, game: str, theme: Theme) -> None:
    """Draw lines at the scores of random play and of a human, with labels right of the panel.

    Far away scores have only a label, with an arrow, because the curves would be flat on their scale.
    """
    low, high = panel.get_ylim()
    scores = REFERENCE_SCORES[game]
    far = {True: 0, False: 0}  # labels above the panel and below it so far
    for name, score in zip(scores._fields, scores, strict=True):
        text = f"{name} {score:,.0f}" if abs(score) >= 1000 else f"{name} {score:g}"
        place: dict[str, Any] = dict(xytext=(4, 0), textcoords="offset points", annotation_clip=False, fontsize=10)
        if abs(score - (low + high) / 2) > _FAR * (high - low):
            above = score > high
            offset = 14 * far[above] * (-1 if above else 1)  # points
            far[above] += 1
            place |= dict(xycoords="axes fraction", va="top" if above else "bottom", xytext=(4, offset))
            panel.annotate(f"{text} {'↑' if above else '↓'}", (1, float(above)), **place)
            continue
        panel.axhline(score, color=theme.ink, linewidth=1, linestyle=(0, (8, 3)))
        place |= dict(xycoords=panel.get_yaxis_transform(), va="bottom" if score == max(scores) else "top")
        panel.annotate(text, (1, score), **place)


def _marked(values: Floats, several: bool, many: int) -> list[int]:
    """Return the points that get a marker: all of a short curve, and points without a line to a neighbour.

    Long curves of `several` experiments have some more, because those beyond the number of colours differ only in
    markers.
    """
    there = np.pad(np.isfinite(values), 1)
    alone = there[1:-1] & ~there[:-2] & ~there[2:]
    some = np.zeros(len(values), bool)
    if several or len(values) <= many:
        some[:: -(-len(values) // many)] = True
    return list(np.flatnonzero(there[1:-1] & (some | alone)))


def look(phase: str, number: int, looks: int, theme: Theme) -> dict[str, Any]:
    """Return line style, colour and marker. The colour stands for the phase, or for one of several experiments."""
    several = looks > 1
    colours = theme.experiments
    return dict(
        color=colours[number % len(colours)] if several else theme.phases[phase],
        marker=_MARKERS[(number + number // len(colours)) % len(_MARKERS)] if several else "o",
        linestyle=_PHASES[phase].style,
        linewidth=_PHASES[phase].width * (1 if looks < 5 else 0.7),
    )


def _phases(group: Group) -> list[tuple[str, Phase]]:
    """Return the phases that an experiment has rows of."""
    there = {name for run in group.runs for name in run.table.phases}
    return [(name, phase) for name, phase in _PHASES.items() if name in there]


# The legend


def _legend(groups: Sequence[Group], labels: Sequence[str], spec: FigureSpec) -> tuple[list[Artist], list[str]]:
    """Return a sample and a text for each experiment if there are several, each phase, and what else is drawn."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    theme, several = THEMES[spec.theme], list(dict.fromkeys(labels))
    entries: list[tuple[Artist, str]] = []
    there = {name: phase for group in groups for name, phase in _phases(group)}
    if len(several) == 1:
        for name, phase in there.items():
            line = Line2D([], [], **look(name, 0, 1, theme) | {"marker": ""})
            entries.append((line, phase.label + _length(groups, name)))
    else:
        for i, label in enumerate(several):
            members = [group for group, its in zip(groups, labels, strict=True) if its == label]
            entries.append((Line2D([], [], **look("test", i, len(several), theme)), label + _seeds(members)))
        for phase in there.values():
            line = Line2D([], [], color=theme.ink, linestyle=phase.style, linewidth=phase.width)
            entries.append((line, phase.label))
    if any(len(group.runs) > 1 for group in groups):
        what = _seeds(groups).strip(" ()") + ", " if len(several) == 1 else ""
        entries.append((Patch(color=theme.ink, alpha=0.2, linewidth=0), f"{what}band: ± 1 standard error of the mean"))
    if spec.smooth > 1:
        entries.append(
            (Line2D([], [], color=theme.ink, linewidth=1, alpha=0.35), f"before the mean over {spec.smooth} epochs")
        )
    if any(map(seams_of, groups)):
        seam = Line2D([], [], color=theme.ink, **_SEAM)
        entries.append((seam, "continued by another run or with other options"))
    return [sample for sample, _ in entries], [text for _, text in entries]


def _seeds(groups: Sequence[Group]) -> str:
    """Return over how many runs the means are, in words; empty if over one."""
    counts = [count for group in groups for count in run_counts(group)]
    low, high = min(counts), max(counts)
    if high == 1:
        return ""
    return f" (mean of {high} seeds)" if low == high else f" (mean of {low} to {high} seeds)"


def _length(groups: Sequence[Group], phase: str) -> str:
    """Return the number of steps of a phase, in words, if all its rows have the same."""
    tables = [run.table for group in groups for run in group.runs]
    steps = {
        step
        for table in tables
        for step, name in zip(table.columns.get("steps", ()), table.phases, strict=False)
        if name == phase
    }
    if len(steps) != 1 or not math.isfinite(step := steps.pop()):
        return ""
    return f" ({step:,.0f} {'step' if step == 1 else 'steps'}{'' if _PHASES[phase].baseline else ' per epoch'})"


def _labels(groups: Sequence[Group]) -> list[str]:
    """Return a label for each experiment. If there are several games, experiments of one label look the same."""
    paths = list(dict.fromkeys(group.path for group in groups))
    names = dict(zip(paths, _names(paths), strict=True))
    labels = [names[group.path] for group in groups]
    if len(_games(groups)) == 1:
        return labels
    short = [without_game(label, group.game) for label, group in zip(labels, groups, strict=True)]
    pairs = {(group.game, label) for group, label in zip(groups, short, strict=True)}
    return short if len(pairs) == len(groups) else labels


def without_game(name: str, game: str) -> str:
    """Return the label of a training: slow for pong_slow and Pong-v5_slow."""
    label = re.sub(rf"^({re.escape(game)}(?=[_-]|$)|.+?-v\d+(?=_|$))", "", name) if game else name
    return label.lstrip("_-") or "no label"


def _names(paths: Sequence[Path]) -> list[str]:
    """Return labels for the files: their names, with folder or ending if names are equal."""
    short, longer = [path.stem for path in paths], [os.fspath(path.with_suffix("")) for path in paths]
    whole = [os.fspath(path) for path in paths]
    names = next(some for some in (short, longer, whole) if len(set(some)) == len(paths))
    printable = ["".join(letter if letter.isprintable() else "\ufffd" for letter in name) for name in names]
    # A space first, because matplotlib hides labels that begin with an underscore.
    return [re.sub(r"^_", " _", name) for name in printable]
