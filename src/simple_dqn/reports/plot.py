"""Learning curves: a program that draws a picture of one or several statistics files."""

from __future__ import annotations

import difflib
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simple_dqn import options
from simple_dqn.errors import OptionError, StatisticsError, exit_status
from simple_dqn.options import Options, option
from simple_dqn.reports.atari_scores import REFERENCE_SCORES
from simple_dqn.reports.curves import AXES, FRAME_SKIP, GROUPINGS, Group, frames_per_step, game_of_file, grouped, run_of
from simple_dqn.reports.figure import FORMATS, MAX_PIXELS, FigureSpec, picture
from simple_dqn.reports.table import RENAMED, NoRows, read_table
from simple_dqn.saving.files import replace_file, require_writable, ships

logger = logging.getLogger(__name__)

_PAUSE = 1.0  # seconds between checks of the files


@dataclass(frozen=True)
class PlotOptions(Options):
    title = "Plot"
    csv_file: tuple[str, ...] = option((), "statistics files to draw in one picture", positional=True)
    png_file: str | None = option(
        None, "picture to write: .png, .svg, .pdf, .jpg or .webp", default_text="the first CSV file's name, with .png"
    )
    dpi: int = option(120, "pixels per inch", at_least=10, at_most=2400)
    skiprows: int = option(1, "header lines to skip; the last one names the columns", at_least=0, at_most=10**6)
    delimiter: str = option(",", "separator between values")
    fields: str = option("average_reward,meanq,nr_games,meancost", "columns to draw, one panel each")
    figure_width: float = option(16.0, "inches", at_least=1, at_most=200)
    figure_height: float | None = option(
        None, "inches", at_least=1, at_most=200, default_text="9, or more for many games"
    )
    x: str = option(
        "epoch", "what the x axis shows; frames: those per step are in the snapshot, else 4", choices=tuple(AXES)
    )
    smooth: int = option(1, "mean over the N epochs around each; the curve itself is faint", at_least=1, at_most=10**6)
    group: str = option(
        "seed", "files drawn as mean and band: of one folder, of one name, or of names that end in the seed",
        choices=GROUPINGS,
    )  # fmt: skip
    reference_scores: bool = option(
        False, "lines at the scores of random play and of a human, for 57 Atari games", optional_value=True
    )
    game: str | None = option(None, "Atari game of all files", default_text="what each file's name begins with")
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
        if self.picture.suffix[1:].lower() not in FORMATS:
            raise OptionError(f"--png_file {self.picture}: its name must end in .{', .'.join(FORMATS[:-1])} or .webp")
        if any(self.picture.resolve() == Path(name).resolve() for name in self.csv_file):
            raise OptionError(f"--png_file {self.picture} would replace the CSV file of that name")
        if self.dpi * max(self.figure_width, self.figure_height or 9) > MAX_PIXELS:
            raise OptionError(f"--dpi {self.dpi}: a side of the picture would have more than {MAX_PIXELS + 1:,} pixels")
        if self.game is not None and self.game not in REFERENCE_SCORES:
            close = difflib.get_close_matches(self.game.lower(), REFERENCE_SCORES, n=1)
            hint = f"did you mean {close[0]}?" if close else "the names are those of ale-py, such as breakout"
            raise OptionError(f"--game {self.game}: not one of the {len(REFERENCE_SCORES)} games with scores; {hint}")

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
        epilog="examples:\n  ./plot.sh results/pong.csv\n  ./plot.sh results/pong.csv results/pong_slow.csv --watch\n"
        "  ./plot.sh results/pong_1.csv results/pong_2.csv --x frames --smooth 5\n",
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
    paths = list(dict.fromkeys(map(Path, o.csv_file)))  # without duplicates
    groups, x_label = read_groups(paths, o)
    spec = FigureSpec(o.field_names, o.x, x_label, o.smooth, o.reference_scores, o.theme)
    kind = o.picture.suffix[1:].lower()
    replace_file(o.picture, picture(groups, spec, kind, o.figure_width, o.figure_height, o.dpi))
    logger.info("The curves are in %s", o.picture)


def read_groups(paths: Sequence[Path], o: PlotOptions) -> tuple[list[Group], str]:
    """Return the experiments in the files, and the label of the x axis.

    Raises:
        StatisticsError: as `plot`.
    """
    wanted = [*o.field_names, *([] if o.x == "epoch" else [AXES[o.x]])]
    tables = [read_table(path, o.skiprows, o.delimiter, wanted) for path in paths]
    frames = [frames_per_step(path) if o.x == "frames" else FRAME_SKIP for path in paths]
    runs = [run_of(table, o.x, number) for table, number in zip(tables, frames, strict=True)]
    known = len(paths) > 1 or o.reference_scores  # because the import of ale-py takes time
    games = [o.game or (game_of_file(path) if known else "") for path in paths]
    for path, game in zip(paths, games, strict=True):
        if o.reference_scores and game not in REFERENCE_SCORES:
            what = f"there are none for {game}" if game else "its name does not begin with a game"
            raise StatisticsError(
                f"--reference_scores: {path}: {what}; add --game NAME, such as --game breakout, or leave it out"
            )
    per_step = f" ({frames[0]} per step)" if len(set(frames)) == 1 else ""
    labels = {"steps": "training steps", "frames": f"frames{per_step}", "hours": "hours since the start"}
    return grouped(runs, o.group, games), labels.get(o.x, o.x)


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
