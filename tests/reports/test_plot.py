"""Learning curves: the picture and the program, and one clear line for what is wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import cv2
import pytest
from test_table import RANDOM, ROWS, TEST, TRAIN, write

from fakes import HEADER
from simple_dqn.errors import OptionError
from simple_dqn.reports.plot import PlotOptions, main

LAUNCHER = Path(__file__).resolve().parents[2] / "src" / "plot.py"


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
    assert size(folder / "results/pong.png") == (1920, 1080)
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


def test_two_seeds_with_every_option_of_curves(folder: Path) -> None:
    for seed in (1, 2):
        write(folder / f"run_{seed}.csv", HEADER, *ROWS)
    words = ["run_1.csv", "run_2.csv", "--x", "frames", "--smooth", "3", "--reference_scores", "--game", "pong"]
    assert main([*words, "--png_file", "seeds.svg"]) == 0
    texts = texts_of(folder / "seeds.svg")
    assert {"Learning curves of run", "random -20.7", "human 14.6 ↑", "frames (4 per step)"} <= set(texts)
    assert "mean of 2 seeds, band: ± 1 standard error of the mean" in texts
    assert main([*words, "--group", "none", "--png_file", "seeds.png"]) == 0
    assert size(folder / "seeds.png") == (1920, 1080)


def test_games_of_several_files_are_those_in_their_names(folder: Path) -> None:
    write(folder / "Breakout-v5.csv", HEADER, *ROWS)
    assert main(["results/pong.csv", "Breakout-v5.csv", "--fields", "meanq", "--png_file", "games.svg"]) == 0
    assert {"pong: Average maximum Q", "breakout: Average maximum Q"} <= set(texts_of(folder / "games.svg"))


def texts_of(path: Path) -> list[str]:
    return ["".join(element.itertext()) for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]


def test_equal_files_make_equal_pictures(folder: Path) -> None:
    for name in ("a.svg", "b.svg", "a.png", "b.png", "a.pdf", "b.pdf"):
        assert main(["results/pong.csv", "--png_file", name, "--dpi", "30"]) == 0
    for kind in ("svg", "png", "pdf"):
        assert (folder / f"a.{kind}").read_bytes() == (folder / f"b.{kind}").read_bytes()
    assert "testing (800 steps per epoch)" in texts_of(folder / "a.svg")


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
    write(folder / "older.csv", "epoch,phase,average_reward", "1,train,-19")
    write(folder / "run.csv", HEADER, *ROWS)
    write(folder / "run_long.csv", HEADER, TRAIN.replace(",1000,1500", ",2000,1500"))
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
    "misspelt file": (["results/pog.csv"], r"there is no file results/pog.csv: did you mean results/pong.csv\?"),
    "no such file": (["results/seaquest.csv"], r"there is no file results/seaquest.csv$"),
    "game for a file": (["pong"], r"there is no file pong: did you mean results/pong.csv\?"),
    "missing folder": (["no/no.csv"], "there is no file no/no.csv"),
    "folder": (["results"], "results is a folder: name a CSV file in it, such as results/pong.csv"),
    "this folder": (["."], ". is a folder: name a CSV file in it, such as binary.csv"),
    "folder above": ([".."], ".. is a folder: name a CSV file"),
    "binary": (["binary.csv"], "cannot read binary.csv: it is not text"),
    "semicolons": (["semicolons.csv"], "semicolons.csv: its values are not separated by ','; add --delimiter ';'"),
    "empty": (["empty.csv"], "empty.csv holds no rows yet"),
    "broken row": (["broken.csv"], "broken.csv, line 3: 3 values instead of 16"),
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
    "x": (["results/pong.csv", "--x", "epochs"], "--x: invalid choice: 'epochs'"),
    "x of an older file": (
        ["older.csv", "--x", "hours"],
        "--x hours: older.csv has no column total_time; use --x epoch",
    ),
    "smooth": (["results/pong.csv", "--smooth", "0"], "--smooth 0: must be at least 1"),
    "group": (["results/pong.csv", "--group", "seeds"], "--group: invalid choice: 'seeds'"),
    "no mean": (
        ["run.csv", "run_long.csv", "--group", "folder"],
        "run.csv and run_long.csv have no mean.*--group none",
    ),
    "game": (["run.csv", "--game", "breakot"], "--game breakot: .* did you mean breakout"),
    "game far off": (["run.csv", "--game", "xyz"], "--game xyz: not one of the 57 games with scores; the names"),
    "no scores": (["run.csv", "--reference_scores"], "run.csv: its name does not begin with a game; add --game NAME"),
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
