"""What a run starts from: a snapshot by its path, or by the name of a game or a training."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from main import GROUPS
from simple_dqn.errors import OptionError, SnapshotError
from simple_dqn.options import parse
from simple_dqn.saving.files import here
from simple_dqn.saving.settings import log_options, settle
from simple_dqn.saving.snapshot import Snapshot, write_snapshot
from simple_dqn.saving.start import find_snapshot, start_where_it_stopped

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "snapshots" / "pretrained"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with snapshots of two trainings of Breakout, the oldest first."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "other/folder").mkdir(parents=True)
    (tmp_path / "other/folder/pong_1.pkl").touch()
    for age, name in enumerate(["breakout_3", "breakout_10", "breakout_4", "breakout_slow_9", "breakout_slow_1_5"]):
        (tmp_path / f"snapshots/{name}.pkl").touch()
        os.utime(tmp_path / f"snapshots/{name}.pkl", (age, age))
    return tmp_path


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("breakout", "snapshots/breakout_4.pkl"),
        ("roms/breakout.bin", "snapshots/breakout_4.pkl"),
        ("snapshots/breakout", "snapshots/breakout_4.pkl"),
        ("breakout_slow", "snapshots/breakout_slow_9.pkl"),
        ("breakout_slow_1", "snapshots/breakout_slow_1_5.pkl"),
        ("breakout_10", "snapshots/breakout_10.pkl"),
        ("breakout_10.pkl", "snapshots/breakout_10.pkl"),
        ("snapshots/breakout_3.pkl", "snapshots/breakout_3.pkl"),
    ],
)
def test_a_name_stands_for_the_newest_snapshot_of_exactly_that_name(word: str, found: str, folder: Path) -> None:
    assert find_snapshot(Path(word)) == Path(found)


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("my_pkg.envs:ns/A-v0", "my_pkg.envs.ns-A-v0"),
        ("my_pkg.envs:A-v0", "my_pkg.envs.A-v0"),
        ("ALE/Breakout-v5", "Breakout-v5"),
        ("ale_py:ALE/Breakout-v5", "Breakout-v5"),
    ],
)
def test_an_environment_s_id_stands_for_its_newest_snapshot(word: str, name: str, folder: Path) -> None:
    (folder / f"snapshots/{name}_1.pkl").touch()
    assert find_snapshot(Path(word)) == Path(f"snapshots/{name}_1.pkl")


@pytest.mark.parametrize("word", ["pong", "Pong", "roms/pong.bin", "roms/PONG.BIN", "pong_16", "pong_16.pkl"])
def test_a_game_without_own_snapshots_is_played_by_the_network_that_ships(
    word: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "roms").mkdir()
    (folder / "roms/pong.bin").touch()  # a ROM is no snapshot
    caplog.set_level("INFO")
    assert find_snapshot(Path(word)) == SHIPPED / "pong_16.pkl"
    assert f"{word}: using {SHIPPED / 'pong_16.pkl'}, which ships with this program" in caplog.text


def test_paths_are_short_below_the_current_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert here(SHIPPED) == Path("snapshots/pretrained")


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("nosuchgame", "nosuchgame: in snapshots are breakout, breakout_slow, breakout_slow_1; this program ships "),
        ("snapshots", "snapshots is a folder, not a snapshot: in snapshots are breakout, "),
        ("snapshots/pong", "there is no snapshot snapshots/pong: in snapshots are breakout_10.pkl, "),
        ("snapshots/pong_16.pkl", "; .*/snapshots/pretrained/pong_16.pkl ships with this program"),
        ("snapshots/brekout", r"there is no snapshot snapshots/brekout: did you mean snapshots/breakout\?$"),
        ("/", "/ is a folder, not a snapshot"),
        ("pong_17.pkl", "there is no snapshot pong_17.pkl"),
        ("other/folder", r"other/folder is a folder, not a snapshot: in other/folder are pong_1.pkl"),
    ],
)
def test_an_unknown_name_gets_the_list_of_names(word: str, words: str, folder: Path) -> None:
    with pytest.raises(SnapshotError, match=words):
        find_snapshot(Path(word))


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("snapshots/", "--resume snapshots is a folder, not a snapshot: in snapshots are breakout_10.pkl, "),
        ("asterix", r"no snapshots asterix_1.pkl .*: in snapshots are breakout, breakout_slow, breakout_slow_1$"),
        (".", "--resume .: name a snapshot, or a prefix such as snapshots/pong"),
        ("/", "--resume /: name a snapshot, or a prefix such as snapshots/pong"),
    ],
)
def test_resuming_what_is_no_training_lists_the_trainings(word: str, words: str, folder: Path) -> None:
    with pytest.raises(OptionError, match=words):
        start_where_it_stopped(Path(word))


def test_an_ambiguous_name_is_refused(folder: Path) -> None:
    (folder / "snapshots/breakout_slow_1.pkl").touch()
    with pytest.raises(OptionError, match=r"breakout_slow_1.pkl or the newest of snapshots/breakout_slow_1_\*.pkl"):
        find_snapshot(Path("breakout_slow_1"))


@pytest.mark.parametrize(
    ("word", "name"),
    [("pnog", "pong"), ("Pnog", "pong"), ("roms/brekout.bin", "breakout"), ("breakout_slwo", "breakout_slow")],
)
def test_a_misspelt_name_gets_the_name_that_is_close(word: str, name: str, folder: Path) -> None:
    with pytest.raises(SnapshotError, match=rf"^there is no snapshot {word}: did you mean {name}\?$"):
        find_snapshot(Path(word))


@pytest.mark.parametrize(("word", "name"), [("brekout", "breakout"), ("Breakout", "breakout")])
def test_a_misspelt_training_gets_the_name_that_is_close(word: str, name: str, folder: Path) -> None:
    with pytest.raises(OptionError, match=rf"there are no snapshots {word}_1.pkl and so on: did you mean {name}\?$"):
        start_where_it_stopped(Path(word))


@pytest.mark.parametrize("word", ["snapshots/pong", "pong", "pong_16.pkl", "pong_16", "snapshots/pong_16.pkl"])
def test_the_network_that_ships_is_resumed_by_its_path_only(word: str, folder: Path) -> None:
    with pytest.raises((OptionError, SnapshotError), match=r"there (is|are) no snapshot"):
        start_where_it_stopped(Path(word))
    assert start_where_it_stopped(SHIPPED / "pong").path == SHIPPED / "pong_16.pkl"


def test_what_is_recorded_is_named_after_the_snapshot_that_was_found(folder: Path) -> None:
    given = {"load_weights": "pong", "video_file": "videos/{snapshot}.mov", "scores_path": "results/{name}"}
    values, _ = settle(GROUPS, given)
    assert (values["video_file"], values["scores_path"]) == ("videos/pong_16.mov", "results/pong")


def options_line(words: list[str], caplog: pytest.LogCaptureFixture) -> str:
    caplog.set_level("INFO")
    given = parse(GROUPS, words, usage="", description="", epilog="")
    log_options(GROUPS, given, *settle(GROUPS, given))
    (line,) = [line for line in caplog.messages if line.startswith("Options: ")]
    return line.removeprefix("Options: ")


def test_a_line_tells_the_options_that_are_not_at_their_defaults(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Path("fast").write_text("--num_envs 8 --double_dqn yes # as a preset\n--batch_size 32")
    words = ["a game", "@fast", "--epochs", "3", "--num_envs", "4", "--color_averaging", "true"]
    assert options_line(words, caplog) == "'a game' --num_envs 4 --double_dqn true --epochs 3"


@pytest.mark.parametrize(
    ("prefix", "csv", "shown"),
    [
        ("snapshots/pong_slow", "results/pong_slow.csv", ""),  # as train.sh names them
        ("snapshots/pong", "a.csv", "--save_weights_prefix snapshots/pong --csv_file a.csv "),
        ("a/pong", "results/pong.csv", "--save_weights_prefix a/pong --csv_file results/pong.csv "),
        ("a/pong", "a/pong.csv", "--save_weights_prefix a/pong --csv_file a/pong.csv "),
    ],
)
def test_the_files_that_train_sh_names_are_not_in_that_line(
    prefix: str, csv: str, shown: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["--save_weights_prefix", prefix, "--csv_file", csv, "pong", "--epochs", "3"]
    assert options_line(words, caplog) == f"{shown}pong --epochs 3"


def test_the_options_of_a_snapshot_are_in_that_line(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = SHIPPED / "pong_16.pkl"
    line = options_line(["--load_weights", str(path), "--test_steps", "5"], caplog)
    assert line.startswith(f"--load_weights {shlex.quote(str(path))} --test_steps 5; from {path}: ")
    assert line.endswith("pong")


def test_that_line_has_the_names_of_the_files_that_are_written(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = ["--load_weights", "pong", "--record_screen_path", "videos/{name}", "--video_file", "videos/{snapshot}.mov"]
    line = options_line([*words, "--record_sound_filename", "{snapshot}.wav"], caplog)
    names = "--record_screen_path videos/pong --video_file videos/pong_16.mov --record_sound_filename pong_16.wav"
    assert f"{names}; from " in line


def test_a_training_that_goes_on_from_what_ships_writes_to_the_current_folder(folder: Path) -> None:
    values, _ = settle(GROUPS, {"resume": str(SHIPPED / "pong_16.pkl")})
    assert values["start_epoch"] == 16
    assert (values["save_weights_prefix"], values["csv_file"]) == ("snapshots/pong", "results/pong.csv")


def test_epochs_that_a_run_set_aside_left_behind_go_with_their_own_statistics(folder: Path) -> None:
    for path in ("snapshots/b.2", "snapshots/b.2/b.13"):
        (folder / path).mkdir()
    write_snapshot(folder / "snapshots/b.2/b.13/b_3.pkl", Snapshot([], (), {}))
    values, _ = settle(GROUPS, {"resume": "snapshots/b.2/b.13/b"})
    assert (values["save_weights_prefix"], values["csv_file"]) == ("snapshots/b.2/b.13/b", "results/b.csv.2.13")
