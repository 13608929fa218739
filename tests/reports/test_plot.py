"""Learning curves: what is drawn of statistics files, and one clear line for what is wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from test_table import FIELDS, ORIGINAL, RANDOM, ROWS, TEST, TRAIN, read, write

from fakes import HEADER
from simple_dqn.errors import OptionError
from simple_dqn.reports import plot as module
from simple_dqn.reports.plot import PlotOptions, draw, main
from simple_dqn.reports.table import Table

LAUNCHER = Path(__file__).resolve().parents[2] / "src" / "plot.py"


def drawn(*tables: Table, fields: Sequence[str] = FIELDS, theme: str = "light") -> Figure:
    figure = Figure()
    draw(figure, tables, fields, theme)
    return figure


def curves(panel: Axes) -> list[tuple[list[float], list[float]]]:
    """What a panel shows, baselines apart: epochs and values."""
    lines = [(np.asarray(line.get_xdata()), np.asarray(line.get_ydata())) for line in panel.lines]
    return [(x.tolist(), y.tolist()) for x, y in lines if x.tolist() != [0, 1]]


def baselines(panel: Axes) -> list[float]:
    lines = [(np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()) for line in panel.lines]
    return [y[0] for x, y in lines if x == [0, 1]]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


# Drawing


def test_a_panel_for_each_field_and_a_curve_for_each_phase(tmp_path: Path) -> None:
    later = [row.replace("1,t", "2,t", 1) for row in (TRAIN, TEST)]
    figure = drawn(read(write(tmp_path / "pong.csv", HEADER, *ROWS, *later)))
    score, q, games, loss = figure.axes
    titles = [(panel.get_title(), panel.get_ylabel(), panel.get_xlabel()) for panel in figure.axes]
    assert titles == [
        ("Average score", "points per game", "epoch"),
        ("Average maximum Q", "discounted reward", "epoch"),
        ("Games played", "games per phase", "epoch"),
        ("Training loss", "halved squared error", "epoch"),
    ]
    assert [baselines(panel) for panel in figure.axes] == [[-20.5], [0.001], [3], []]
    assert curves(score) == [([1, 2], [-18, -18]), ([1, 2], [-19, -19])]
    assert curves(q) == [([1, 2], [0.3, 0.3]), ([1, 2], [0.2, 0.2])]
    assert curves(games) == [([1, 2], [4, 4]), ([1, 2], [5, 5])]
    assert curves(loss) == [([1, 2], [0.01, 0.01])]  # there is none where nothing is learned
    assert legend(figure) == [
        "random moves (500 steps)",
        "training (1,000 steps per epoch)",
        "testing (800 steps per epoch)",
    ]
    assert figure.get_suptitle() == "Learning curves of pong"


def test_phase_without_rows_is_left_out(tmp_path: Path) -> None:
    figure = drawn(read(write(tmp_path / "a.csv", HEADER, TEST, TEST.replace("800", "900"))), fields=["meanq"])
    assert legend(figure) == ["testing"]  # of no one length
    (panel,) = figure.axes
    assert (baselines(panel), curves(panel)) == ([], [([1, 1], [0.3, 0.3])])


def test_gaps_and_single_points(tmp_path: Path) -> None:
    """No game ended in epochs 2 and 4: the line has gaps, and what stands alone has a marker."""
    scores = ["1", "nan", "3", "nan", *["5"] * 60, "inf"]
    rows = [f"{i},test,1,0,{score}{',1' * 11}" for i, score in enumerate(scores, 1)]
    (panel,) = drawn(read(write(tmp_path / "a.csv", HEADER, *rows)), fields=["average_reward"]).axes
    ((_, values),) = curves(panel)
    np.testing.assert_array_equal(values, [1, np.nan, 3, np.nan, *[5] * 60, np.nan])
    assert panel.lines[0].get_markevery() == [0, 2]


def test_panel_without_values_says_so(tmp_path: Path) -> None:
    rows = [row.replace("-19,-21,-17", "nan,nan,nan") for row in ROWS[1:2]]
    figure = drawn(read(write(tmp_path / "a.csv", HEADER, *rows)))
    assert [[text.get_text() for text in panel.texts] for panel in figure.axes] == [
        ["no game has ended yet"],
        [],
        [],
        [],
    ]


def test_files_are_told_apart_by_colour_and_phases_by_line(tmp_path: Path) -> None:
    tables = [read(write(tmp_path / f"{name}.csv", HEADER, *ROWS)) for name in ("pong", "_double$x$")]
    figure = drawn(*tables)
    assert legend(figure) == ["pong", " _double$x$", "random moves", "training", "testing"]
    (score, *_) = figure.axes
    looks = {(line.get_color(), line.get_linestyle(), line.get_linewidth()) for line in score.lines}
    assert len(looks) == 6
    assert len({colour for colour, *_ in looks}) == 2
    assert len({look[1:] for look in looks}) == 3


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    tables = [read(write(tmp_path / folder / "pong.csv", HEADER, *ROWS)) for folder in ("a", "b")]
    assert legend(drawn(*tables))[:2] == [str(tmp_path / "a" / "pong"), str(tmp_path / "b" / "pong")]
    kept = [tables[0]._replace(path=Path(name)) for name in ("pong.csv", "pong.csv.1", "pong.csv.2")]
    assert legend(drawn(*kept))[:3] == ["pong.csv", "pong.csv.1", "pong.csv.2"]


def test_many_files_differ_in_colour_or_marker(tmp_path: Path) -> None:
    table = read(write(tmp_path / "a.csv", HEADER, *ROWS))
    figure = drawn(*(table._replace(path=Path(f"{i}.csv")) for i in range(20)), fields=["meanq"])
    (panel,) = figure.axes
    assert len({(line.get_color(), line.get_marker()) for line in panel.lines if line.get_marker()}) == 20


def test_long_curves_of_several_files_have_markers_in_places(tmp_path: Path) -> None:
    rows = [f"{i},test,1,1,{i}{',1' * 11}" for i in range(1, 201)]
    table = read(write(tmp_path / "a.csv", HEADER, *rows))
    for tables, marked in (([table], []), ([table, table._replace(path=Path("b.csv"))], list(range(0, 200, 5)))):
        (panel,) = drawn(*tables, fields=["average_reward"]).axes
        assert panel.lines[0].get_markevery() == marked


def test_legend_lies_outside_the_panels(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", HEADER, *ROWS)
    figure = Figure(figsize=(16, 9), layout="constrained")
    draw(figure, [read(tmp_path / "a.csv")], FIELDS, "light")
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert 0 <= box.y0 < box.y1 < min(panel.get_tightbbox().y0 for panel in figure.axes)  # type: ignore[union-attr]


def seen(colour: str, lacking: str) -> np.ndarray[Any, Any]:
    """A colour in CIE L*a*b*, as those see it who have all cones, or none for red, green or blue (Viénot et al. 1999,
    and for blue the like of it)."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_lms = np.array([[17.8824, 43.5161, 4.1193], [3.4557, 27.1554, 3.8671], [0.02996, 0.18431, 1.4670]])
    lms = to_lms @ linear
    if lacking == "red":
        lms[0] = 2.02344 * lms[1] - 2.52581 * lms[2]
    elif lacking == "green":
        lms[1] = 0.494207 * lms[0] + 1.24827 * lms[2]
    elif lacking == "blue":
        lms[2] = -0.395913 * lms[0] + 0.801109 * lms[1]
    linear = np.linalg.solve(to_lms, lms).clip(0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    x, y, z = np.cbrt(xyz / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("lacking", ["nothing", "red", "green", "blue"])
def test_colours_can_be_told_apart(theme: str, lacking: str) -> None:
    colours = module._THEMES[theme]
    for group in (tuple(colours.phases.values()), colours.files):
        all_seen = [seen(colour, lacking) for colour in group]
        for i, one in enumerate(all_seen):
            assert abs(one[0] - seen(colours.paper, lacking)[0]) > 38, group[i]  # lightness, of 100
            for other, name in zip(all_seen[:i], group, strict=False):
                assert np.linalg.norm(one - other) > 15, (group[i], name)


# The picture and the program


def size(path: Path) -> tuple[int, int]:
    image = cv2.imread(str(path))
    assert image is not None
    return image.shape[1], image.shape[0]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with statistics of two runs."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "results" / "pong.csv", HEADER, *ROWS)
    write(tmp_path / "results" / "pong_double.csv", HEADER, *ROWS)
    return tmp_path


def test_picture_lies_beside_the_csv_file(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert main(["results/pong.csv"]) == 0
    assert sorted(path.name for path in folder.glob("results/*")) == ["pong.csv", "pong.png", "pong_double.csv"]
    assert size(folder / "results/pong.png") == (1280, 720)
    assert "The curves are in results/pong.png" in caplog.text


def test_picture_of_statistics_that_ship_lies_below_the_current_folder(folder: Path) -> None:
    shipped = Path(__file__).resolve().parents[2] / "results" / "pretrained" / "breakout.csv"
    assert main([str(shipped), "--dpi", "20"]) == 0
    assert (folder / "results/breakout.png").is_file()


def test_every_option(folder: Path) -> None:
    write(folder / "odd.csv", *(line.replace(",", ";") for line in ("first", "second", *ROWS)))
    words = ["-fields", "meanq,steps_per_second, min_game_reward", "--dpi", "50", "--skiprows=2", "--delimiter", ";"]
    words += ["--figure_width", "6", "--figure_height", "4.5", "--png_file", "new/odd.png", "--theme", "dark"]
    assert main([*words, "-csv_file", "odd.csv"]) == 0
    assert size(folder / "new/odd.png") == (300, 225)
    image = cv2.imread(str(folder / "new/odd.png"))
    assert image is not None
    assert image[0, 0].max() < 40


@pytest.mark.parametrize(
    "words",
    [
        ["results/pong.csv", "results/pong_double.csv"],
        ["results/pong.csv", "--dpi", "20", "results/pong_double.csv", "results/pong.csv"],
        ["-csv_file", "results/pong.csv", "results/pong_double.csv"],
        ["--csv_file", "results/pong.csv", "--dpi=20", "results/pong_double.csv"],
        ["--watch=false", "results/pong.csv", "--csv_file=results/pong_double.csv"],
    ],
)
def test_several_files_wherever_they_stand(words: list[str], folder: Path) -> None:
    assert main([*words, "--png_file", "both.svg"]) == 0
    texts = texts_of(folder / "both.svg")
    assert [word for word in texts if word.startswith("pong")] == ["pong", "pong_double"]


def texts_of(path: Path) -> list[str]:
    return ["".join(element.itertext()) for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]


def test_equal_files_make_equal_pictures(folder: Path) -> None:
    for name in ("a.svg", "b.svg", "a.png", "b.png", "a.pdf", "b.pdf"):
        assert main(["results/pong.csv", "--png_file", name, "--dpi", "30"]) == 0
    for kind in ("svg", "png", "pdf"):
        assert (folder / f"a.{kind}").read_bytes() == (folder / f"b.{kind}").read_bytes()
    assert "testing (800 steps per epoch)" in texts_of(folder / "a.svg")


def test_numbers_too_large_to_draw_are_left_out(folder: Path) -> None:
    write(
        folder / "a.csv", HEADER, TRAIN.replace("0.2", "1e308"), TRAIN.replace("0.2", "-1e308").replace("-19", "3e38")
    )
    assert main(["a.csv", "--dpi", "20"]) == 0
    score, q, *_ = drawn(read(folder / "a.csv")).axes
    assert [text.get_text() for text in q.texts] == ["no values"]
    assert curves(score) == [([1, 1], [-19, 3e38])]


def test_tiny_figure_and_strange_letters(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "$\\frac 游戏.csv", HEADER, *ROWS)
    write(folder / os.fsdecode(b"bad\xff\x01.csv"), HEADER, *ROWS)
    assert main([os.fsdecode(b"bad\xff\x01.csv"), "--png_file", "a.svg"]) == 0
    ElementTree.parse(folder / "a.svg")
    assert main(["$\\frac 游戏.csv", "--figure_width", "1", "--figure_height", "1", "--dpi", "30"]) == 0
    assert (folder / "$\\frac 游戏.png").exists()
    assert capsys.readouterr().err == ""


@pytest.fixture
def refuse(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `main`, which must change no file, and returns the one line that it says."""
    write(folder / "broken.csv", HEADER, RANDOM, "1,train,oops", TEST)
    write(folder / "headless.csv", RANDOM, TEST)
    (folder / "binary.csv").write_bytes(b"\xff\xfe" * 100)
    (folder / "empty.csv").write_bytes(b"")
    write(folder / "semicolons.csv", *(line.replace(",", ";") for line in (HEADER, *ROWS)))

    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def refuse(*words: str) -> str:
        before, paths = contents(), sorted(folder.rglob("*"))
        status = main(words)
        out, err = capsys.readouterr()
        assert (status, out, err.count("\n")) == (2, "", 1), err
        assert (contents(), sorted(folder.rglob("*"))) == (before, paths)
        return err.removeprefix("error: ").strip()

    return refuse


WRONG = {
    "no file": ([], "no CSV file given"),
    "missing file": (["no.csv"], "there is no file no.csv"),
    "missing folder": (["no/no.csv"], "there is no file no/no.csv"),
    "folder": (["results"], "results is a folder: name a CSV file in it, such as results/pong.csv"),
    "this folder": (["."], ". is a folder: name a CSV file in it, such as binary.csv"),
    "folder above": ([".."], ".. is a folder: name a CSV file"),
    "binary": (["binary.csv"], "cannot read binary.csv: it is no text"),
    "semicolons": (["semicolons.csv"], "semicolons.csv: its values are not separated by ','; add --delimiter ';'"),
    "empty": (["empty.csv"], "empty.csv holds no rows yet"),
    "broken row": (["broken.csv"], "broken.csv, line 3: 3 values in place of 16"),
    "second file": (["results/pong.csv", "broken.csv"], "broken.csv, line 3"),
    "header as row": (["results/pong.csv", "--skiprows", "0"], "results/pong.csv, line 1: phase is 'phase'"),
    "unknown field": (
        ["results/pong.csv", "--fields", "averge_reward"],
        "--fields averge_reward: .*mean average_reward",
    ),
    "field far off": (["results/pong.csv", "--fields", "meanq,xyz"], "--fields xyz: .* it has steps, nr_games, "),
    "phase as field": (["results/pong.csv", "--fields", "phase"], "--fields phase: "),
    "no field": (["results/pong.csv", "--fields", " , "], "names no column"),
    "delimiter": (["results/pong.csv", "--delimiter", ";;"], "--delimiter ';;': must be a single character"),
    "other delimiter": (
        ["results/pong.csv", "--delimiter", ";"],
        "results/pong.csv: its values are not separated by ';'; add --delimiter ','",
    ),
    "no header": (["headless.csv"], "headless.csv, line 1: this is a row, not the column names; use --skiprows 0"),
    "format": (["results/pong.csv", "--png_file", "a.bmp"], r"--png_file a.bmp: .* must end in .png, .svg"),
    "no format": (["results/pong.csv", "--png_file", "a"], "must end in"),
    "device": (["results/pong.csv", "--png_file", "/dev/null/a.png"], "cannot write /dev/null/a.png"),
    "input as output": (["results/pong.csv", "x.png", "--png_file", "./x.png"], "would replace the CSV file"),
    "dpi": (["results/pong.csv", "--dpi", "0"], "--dpi 0: must be at least 10"),
    "pixels": (["results/pong.csv", "--dpi", "2400"], "--dpi 2400: a side .* more than 32,768 pixels"),
    "width": (["results/pong.csv", "--figure_width", "0"], "--figure_width 0.0: must be at least 1"),
    "theme": (["results/pong.csv", "--theme", "blue"], "--theme: invalid choice: 'blue'"),
    "option": (["results/pong.csv", "--feilds", "meanq"], "unrecognized argument '--feilds': did you mean --fields"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arguments(what: str, refuse: Callable[..., str]) -> None:
    words, message = WRONG[what]
    assert re.search(message, refuse(*words))


def test_options_check_themselves() -> None:
    with pytest.raises(OptionError, match="no CSV file given"):
        PlotOptions()


def test_watching(folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Waits for the file and its first row, and draws once for every change."""
    caplog.set_level("INFO")
    path = folder / "later.csv"
    contents = [
        None,
        "",
        HEADER + "\n",
        f"{HEADER}\n{RANDOM}\n",
        f"{HEADER}\n{RANDOM}\n",
        f"{HEADER}\n{RANDOM}\n{TRAIN}\n",
    ]
    drawings = []

    def sleep(seconds: float) -> None:
        picture = folder / "later.png"
        drawings.append(picture.stat().st_mtime_ns if picture.exists() else 0)
        if len(drawings) == len(contents):
            raise KeyboardInterrupt
        content = contents[len(drawings)]
        if content is not None and (not path.exists() or path.read_text() != content):
            path.write_text(content)

    monkeypatch.setattr(time, "sleep", sleep)
    assert main(["later.csv", "--watch", "--dpi", "20"]) == 130
    assert drawings[:3] == [0, 0, 0]
    assert 0 < drawings[3] == drawings[4] < drawings[5]
    assert "Waiting: there is no file later.csv" in caplog.text
    assert "Waiting: later.csv holds no rows yet" in caplog.text


@pytest.mark.parametrize(
    ("place", "settings"),
    [
        ("matplotlibrc", dict(MPLBACKEND="module://matplotlib_inline.backend_inline")),
        ("mine/matplotlibrc", dict(MATPLOTLIBRC="mine/matplotlibrc", MPLBACKEND="no such thing")),
        (".config/matplotlib/matplotlibrc", dict(HOME=".", MPLCONFIGDIR="/dev/null/no")),
        (".config/matplotlib/matplotlibrc", dict(XDG_CONFIG_HOME=".config")),
    ],
)
def test_no_settings_of_matplotlib_get_in_the_way(place: str, settings: dict[str, str], folder: Path) -> None:
    path = folder / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"text.usetex: true\nfont.family: No Such Font\nsavefig.bbox: tight\nbroken\nx: \xff\n")
    words = [sys.executable, str(LAUNCHER), "results/pong.csv", "--dpi", "20"]
    result = subprocess.run(words, cwd=folder, env=os.environ | settings, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "The curves are in results/pong.png\n")
    assert main(["results/pong.csv", "--dpi", "20", "--png_file", "plain.png"]) == 0
    assert (folder / "results" / "pong.png").read_bytes() == (folder / "plain.png").read_bytes()


def test_help_is_quick_and_the_program_runs_by_itself(folder: Path) -> None:
    """The check for matplotlib stands for a time: the first import takes most of a second."""
    check = "import sys, simple_dqn.reports.plot; sys.exit('matplotlib' in sys.modules or 'torch' in sys.modules)"
    variables = os.environ | {"PYTHONPATH": str(LAUNCHER.parent)}
    assert subprocess.run([sys.executable, "-c", check], env=variables, timeout=60).returncode == 0
    ends = [
        subprocess.run([sys.executable, str(LAUNCHER), *words], capture_output=True, text=True, timeout=60)
        for words in (["--help"], ["no.csv"])
    ]
    assert [(end.returncode, end.stderr) for end in ends] == [(0, ""), (2, "error: there is no file no.csv\n")]
    assert ends[0].stdout.startswith("usage: plot.sh CSV_FILE... [options]")


# The curves of 2015


@pytest.mark.skipif(not ORIGINAL.is_dir(), reason="the statistics of 2015 are not here")
@pytest.mark.parametrize("game", ["breakout", "pong", "seaquest", "space_invaders"])
def test_curves_of_2015(game: str) -> None:
    table = read(ORIGINAL / f"{game}.csv")
    assert [table.phases.count(phase) for phase in ("random", "train", "test")] == [1, 200, 200]
    figure = drawn(table)
    assert [len(panel.lines) for panel in figure.axes] == [3, 3, 3, 1]
    assert legend(figure)[2] == "testing (125,000 steps per epoch)"
    assert np.nanmax(np.abs(table.columns["max_game_reward"])) < 10_000
