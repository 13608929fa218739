"""Learning curves: a picture of one or several statistics files.

A figure has a panel per field, and a panel has a curve per phase and file. Only this module imports matplotlib.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import math
import os
import re
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from simple_dqn import options
from simple_dqn.errors import OptionError, exit_status
from simple_dqn.options import Options, option
from simple_dqn.reports.table import RENAMED, SCORES, Floats, NoRows, Table, read_table
from simple_dqn.saving.files import require_writable, ships, write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

logger = logging.getLogger(__name__)

_FORMATS = ("png", "svg", "pdf", "jpg", "webp")
_LIMIT = 1e100  # larger values are left out, because matplotlib cannot choose ticks for them
_MANY = 40  # more markers would hide the curve
_PAUSE = 1.0  # seconds between checks of the files


@dataclass(frozen=True)
class PlotOptions(Options):
    title = "Plot"
    csv_file: tuple[str, ...] = option((), "statistics files to draw in one picture", positional=True)
    png_file: str | None = option(
        None, "picture to write: .png, .svg, .pdf, .jpg or .webp", default_text="the first CSV file's name, with .png"
    )
    dpi: int = option(80, "pixels per inch", at_least=10, at_most=2400)
    skiprows: int = option(1, "header lines to skip; the last one names the columns", at_least=0, at_most=10**6)
    delimiter: str = option(",", "separator between values")
    fields: str = option("average_reward,meanq,nr_games,meancost", "columns to draw, one panel each")
    figure_width: float = option(16.0, "inches", at_least=1, at_most=200)
    figure_height: float = option(9.0, "inches", at_least=1, at_most=200)
    theme: str = option("light", "light or dark background", choices=("light", "dark"))
    watch: bool = option(False, "draw again whenever a file changes, until Ctrl-C", optional_value=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.csv_file or not all(self.csv_file):
            raise OptionError("no CSV file given: name one such as results/pong.csv")
        for folder in filter(Path.is_dir, map(Path, self.csv_file)):
            inside = min(folder.glob("*.csv"), default=None)
            raise OptionError(
                f"{folder} is a folder: name a CSV file" + (f" in it, such as {inside}" if inside else "")
            )
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n':
            raise OptionError(f"--delimiter {self.delimiter!r}: must be a single character")
        if not self.field_names:
            raise OptionError(f"--fields {self.fields!r} names no column")
        if self.picture.suffix[1:].lower() not in _FORMATS:
            raise OptionError(f"--png_file {self.picture}: its name must end in .{', .'.join(_FORMATS[:-1])} or .webp")
        if any(self.picture.resolve() == Path(name).resolve() for name in self.csv_file):
            raise OptionError(f"--png_file {self.picture} would replace the CSV file of that name")
        if self.dpi * max(self.figure_width, self.figure_height) >= 2**15:
            raise OptionError(f"--dpi {self.dpi}: a side of the picture would have more than {2**15:,} pixels")

    @property
    def field_names(self) -> list[str]:
        """The columns to draw, by their current names."""
        names = [name.strip() for name in self.fields.split(",")]
        return [RENAMED.get(name, name) for name in names if name]

    @property
    def picture(self) -> Path:
        """The file to write."""
        if self.png_file:
            return Path(self.png_file)
        beside = Path(self.csv_file[0]).with_suffix(".png")
        return Path("results", beside.name) if ships(beside) else beside


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
    phases: dict[str, str]  # in the figure of a single file
    files: tuple[str, ...]  # in the figure of several files


# The first two follow Okabe and Ito (https://jfly.uni-koeln.de/color/). A search chose the others, with the greatest
# distance for people without red, green or blue cones. A test simulates these.
_THEMES = {
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


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the picture; return the exit status: 0, 2 if the input is wrong, 130 after Ctrl-C."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    words = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: run(words), "use a smaller --dpi")


def run(argv: Sequence[str]) -> None:
    """Draw the picture, once or, with --watch, until Ctrl-C.

    Raises:
        SimpleDQNError: the input is wrong.
    """
    values = options.parse(
        [PlotOptions],
        argv,
        usage="plot.sh CSV_FILE... [options]",
        description="Draws learning curves: score, games, Q-value and loss of each phase of each epoch.",
        epilog="examples:\n  ./plot.sh results/pong.csv\n  ./plot.sh results/pong.csv results/pong_slow.csv --watch\n",
    )
    plot_options = options.build(PlotOptions, values)
    require_writable(plot_options.picture)
    if plot_options.watch:
        watch(plot_options)
    else:
        plot(plot_options)


def plot(o: PlotOptions) -> None:
    """Read the files and write the picture.

    Raises:
        StatisticsError: a file is missing, empty or damaged, or lacks a column.
        OutputError: the picture could not be written.
    """
    paths = dict.fromkeys(map(Path, o.csv_file))  # without duplicates
    tables = [read_table(path, o.skiprows, o.delimiter, o.field_names) for path in paths]
    write_whole(o.picture, picture(tables, o))
    logger.info("The curves are in %s", o.picture)


def watch(o: PlotOptions) -> None:
    """Draw again whenever a file changes. Wait for files that are missing or have no rows yet.

    Raises:
        SimpleDQNError: as `plot`.
    """
    before = None
    while True:
        now = [_stamp(Path(name)) for name in o.csv_file]
        if now != before:
            try:
                plot(o)
            except NoRows as wait:
                logger.info("Waiting: %s", wait)
        before = now
        time.sleep(_PAUSE)


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return time and size of a file, which change with it; None if it is missing."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


# Drawing


def picture(tables: Sequence[Table], o: PlotOptions) -> bytes:
    """Return the picture of these files, in the format of its name."""
    matplotlib = _import_matplotlib()
    from matplotlib.figure import Figure

    kind = o.picture.suffix[1:].lower()
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_settings(_THEMES[o.theme]))
        # No warnings: the user sees that a figure is too small, or that the font lacks a letter.
        warnings.simplefilter("ignore", UserWarning)
        figure = Figure(figsize=(o.figure_width, o.figure_height), dpi=o.dpi, layout="constrained")
        draw(figure, tables, o.field_names, o.theme)
        # No date, because equal files make equal pictures.
        metadata = {"Date": None} if kind == "svg" else {"CreationDate": None} if kind == "pdf" else None
        data = io.BytesIO()
        figure.savefig(data, format=kind, metadata=metadata)
    return data.getvalue()


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


def draw(figure: Figure, tables: Sequence[Table], fields: Sequence[str], theme_name: str) -> None:
    """Draw a panel for each field into an empty figure and, below them, the legend."""
    theme = _THEMES[theme_name]
    names = _names([table.path for table in tables])
    columns = math.ceil(math.sqrt(len(fields)))
    panels = figure.subplots(math.ceil(len(fields) / columns), columns, squeeze=False).ravel()
    for panel, field in zip(panels, fields, strict=False):
        _draw_panel(panel, field, tables, theme)
    for panel in panels[len(fields) :]:
        panel.remove()
    figure.suptitle(f"Learning curves of {names[0]}" if len(names) == 1 else "Learning curves", fontsize=17)
    lines, labels = _legend(tables, names, theme)
    widest = max(map(len, labels)) / 11 + 0.8  # inches, roughly
    columns = max(1, min(len(labels), int(figure.get_figwidth() / widest)))
    figure.legend(lines, labels, loc="outside lower center", ncols=columns)


def _draw_panel(panel: Axes, field: str, tables: Sequence[Table], theme: Theme) -> None:
    from matplotlib.ticker import MaxNLocator

    title, unit = _FIELDS.get(field, Field(field, ""))
    panel.set_title(title)
    panel.set_xlabel("epoch")
    panel.set_ylabel(unit)
    panel.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    empty = True
    for i, table in enumerate(tables):
        for name, phase in reversed(_phases(table)):  # thin lines over thick ones, because those would hide them
            epochs, values = _curve(table, field, name)
            if np.isfinite(values).any():
                empty = False
                look = _look(name, i, len(tables), theme)
                _draw_curve(panel, epochs, values, phase, look | {"markevery": _marked(values, len(tables) > 1)})
    if empty:
        why = "no game has ended yet" if field in SCORES else "no values"
        panel.text(0.5, 0.5, why, transform=panel.transAxes, ha="center", va="center")


def _draw_curve(panel: Axes, epochs: Floats, values: Floats, phase: Phase, look: dict[str, Any]) -> None:
    if phase.baseline:
        panel.axhline(values[np.isfinite(values)][-1], **look | {"marker": "", "markevery": None})
        return
    panel.plot(epochs, values, **look)


def _marked(values: Floats, several: bool) -> list[int]:
    """Return the points that get a marker: all of a short curve, and points without a line to a neighbour.

    Long curves of `several` files have some more, because files beyond the number of colours differ only in markers.
    """
    there = np.pad(np.isfinite(values), 1)
    alone = there[1:-1] & ~there[:-2] & ~there[2:]
    some = np.zeros(len(values), bool)
    if several or len(values) <= _MANY:
        some[:: -(-len(values) // _MANY)] = True
    return list(np.flatnonzero(there[1:-1] & (some | alone)))


def _look(phase: str, file: int, files: int, theme: Theme) -> dict[str, Any]:
    """Return line style, colour and marker. The colour stands for the phase of a single file, or for one of several."""
    several = files > 1
    return dict(
        color=theme.files[file % len(theme.files)] if several else theme.phases[phase],
        marker=_MARKERS[(file + file // len(theme.files)) % len(_MARKERS)] if several else "o",
        linestyle=_PHASES[phase].style,
        linewidth=_PHASES[phase].width,
    )


def _phases(table: Table) -> list[tuple[str, Phase]]:
    """Return the phases that a file has rows of."""
    return [(name, phase) for name, phase in _PHASES.items() if name in table.phases]


def _curve(table: Table, field: str, phase: str) -> tuple[Floats, Floats]:
    """Return the epochs and values of a phase's rows; nan for missing values."""
    rows = np.array(table.phases) == phase
    values = table.columns[field][rows]
    values = np.where(np.abs(values) < _LIMIT, values, np.nan)
    if field == "meancost":  # because 0 means that the phase had no weight updates
        values[values == 0] = np.nan
    return table.columns["epoch"][rows], values


def _legend(tables: Sequence[Table], names: Sequence[str], theme: Theme) -> tuple[list[Line2D], list[str]]:
    """Return a line and a label for each phase and, if there are several, each file."""
    from matplotlib.lines import Line2D

    there = {name: phase for table in tables for name, phase in _phases(table)}
    if len(tables) == 1:
        lines = [Line2D([], [], **_look(name, 0, 1, theme) | {"marker": ""}) for name in there]
        return lines, [phase.label + _length(tables[0], name) for name, phase in there.items()]
    lines = [Line2D([], [], **_look("test", i, len(tables), theme)) for i in range(len(tables))]
    lines += [Line2D([], [], color=theme.ink, linestyle=p.style, linewidth=p.width) for p in there.values()]
    return lines, [*names, *(phase.label for phase in there.values())]


def _length(table: Table, phase: str) -> str:
    """Return the number of steps of a phase, in words, if all its rows have the same."""
    steps = {step for step, name in zip(table.columns.get("steps", ()), table.phases, strict=False) if name == phase}
    if len(steps) != 1 or not math.isfinite(step := steps.pop()):
        return ""
    return f" ({step:,.0f} steps{'' if _PHASES[phase].baseline else ' per epoch'})"


def _names(paths: Sequence[Path]) -> list[str]:
    """Return labels for the files: their names, with folder or ending if names are equal."""
    short, longer = [path.stem for path in paths], [os.fspath(path.with_suffix("")) for path in paths]
    whole = [os.fspath(path) for path in paths]
    names = next(some for some in (short, longer, whole) if len(set(some)) == len(paths))
    printable = ["".join(letter if letter.isprintable() else "\ufffd" for letter in name) for name in names]
    # A space first, because matplotlib hides labels that begin with an underscore.
    return [re.sub(r"^_", " _", name) for name in printable]
