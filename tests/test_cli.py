"""The program as a whole: its phases and files, and one clear line for whatever the user gets wrong."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints
from unittest.mock import Mock

import numpy as np
import pytest

import main as simple_dqn_main
from main import GROUPS, main
from runs import DEADLINE, MAIN, ROOT, TIMES, contents, rows, start, wait_for, without_times
from simple_dqn.agent import Agent
from simple_dqn.deepqnetwork import BackendOptions, DeepQNetwork, DeepQNetworkOptions
from simple_dqn.errors import GameError, OutputError, SnapshotError
from simple_dqn.interrupts import stop_on_interrupt
from simple_dqn.reports.csv_file import CSVFile
from simple_dqn.saving.snapshot import Snapshot, read_snapshot, write_snapshot

SHORT = ["--random_steps", "60", "--train_steps", "40", "--test_steps", "20", "--epochs", "1", "--random_seed", "7"]
SHORT += ["--screen_width", "40", "--screen_height", "36", "--batch_size", "8", "--backend", "cpu"]
FILES = ["--csv_file", "results/pong.csv", "--save_weights_prefix", "snapshots/pong"]


def run(*arguments: str, cwd: Path) -> str:
    """Run the program, which must succeed and print only scores. Return its log."""
    process = start(*arguments, cwd=cwd)
    out, log = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out[:6]) == (0, "  game" if "--play_games" in arguments else ""), log
    return log


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one epoch of Pong; not to be written to."""
    folder = tmp_path_factory.mktemp("trained")
    run("pong", *SHORT, *FILES, cwd=folder)
    return folder


@pytest.fixture
def snapshot(trained: Path) -> Path:
    return trained / "snapshots" / "pong_1.pkl"


# Training, resuming, testing, playing


def test_training_writes_a_row_per_phase_and_a_snapshot_per_epoch(trained: Path) -> None:
    checkpoint = ["snapshots/pong_1.checkpoint", "snapshots/pong_1.pkl", "snapshots/pong_100.replay"]
    assert sorted(contents(trained)) == ["results/pong.csv", *checkpoint]
    table = rows(trained / "results" / "pong.csv")
    assert [(row["epoch"], row["phase"], row["steps"]) for row in table] == [
        ("0", "random", "60"),
        ("1", "train", "40"),
        ("1", "test", "20"),
    ]
    for row in table:
        assert all(float(row[name]) > 0 for name in TIMES)
        assert row["nr_games"] == "0"  # nobody scores 21 in so few steps
        assert [row[name] for name in ("average_reward", "min_game_reward", "max_game_reward")] == ["nan"] * 3
    assert [row["last_exploration_rate"] for row in table] == ["1", f"{1 - 0.9 * 39 / 1e6!r}", "0.05"]
    assert [row["total_train_steps"] for row in table] == ["0", "40", "40"]
    assert [row["replay_memory_count"] for row in table] == ["60", "100", "100"]
    assert [row["weight_updates"] for row in table] == ["0", "10", "10"]
    assert [float(row["meancost"]) > 0 for row in table] == [False, True, False]


def test_equal_seeds_make_equal_files_however_options_are_written(trained: Path, tmp_path: Path) -> None:
    words = [*SHORT, *FILES]
    joined = [f"{name}={value}" for name, value in zip(words[::2], words[1::2], strict=True)]
    run(*joined[:4], *(word[1:] for word in joined[4:]), "-environment", "ale", "pong", cwd=tmp_path)
    tables = [without_times(folder / "results" / "pong.csv") for folder in (trained, tmp_path)]
    assert tables[0] == tables[1]
    assert contents(tmp_path / "snapshots") == contents(trained / "snapshots")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere PyTorch comes with another OpenMP")
@pytest.mark.parametrize(("frequency", "less"), [("4", False), ("32", True)])
def test_threads_spin_less_where_games_and_learning_take_turns(
    frequency: str, less: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenMP looks at the variable as it is loaded, and tells with which values it was."""
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)  # runs within this process leave it
    words = ["pong", *SHORT, "--num_envs", "2", "--train_frequency", frequency]
    process = start(*words, cwd=tmp_path, OMP_DISPLAY_ENV="VERBOSE")
    _, log = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, log
    (told,) = set(re.findall(r"GOMP_SPINCOUNT = '(\d+)'", log))
    assert (told == "10000") == less


def test_ctrl_c_after_a_signal_ends_at_once_but_gives_the_terminal_back(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Any] = []
    monkeypatch.setattr(os, "kill", lambda pid, signum: events.append((pid, signum, signal.getsignal(signum))))
    with stop_on_interrupt(lambda: events.append("stop"), lambda: events.append("closed")):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert events == ["stop"]
        signal.raise_signal(signal.SIGINT)
    assert events == ["stop", "closed", (os.getpid(), signal.SIGINT, signal.SIG_DFL)]


def test_games_side_by_side_train_the_same_twice(tmp_path: Path) -> None:
    """The fast preset, its steps no multiple of the games."""
    fast = ["@presets/fast", *SHORT, "--train_steps", "45", "--target_steps", "16"]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        run("pong", *fast, *FILES, cwd=tmp_path / name)
    one, two = (tmp_path / name for name in ("one", "two"))
    found = rows(one / "results" / "pong.csv")
    assert [row["steps"] for row in found] == ["60", "45", "20"]
    assert [row["weight_updates"] for row in found] == ["0", "12", "12"]
    assert contents(one / "snapshots") == contents(two / "snapshots")
    assert without_times(one / "results" / "pong.csv") == without_times(two / "results" / "pong.csv")


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained folder, to go on in."""
    return shutil.copytree(trained, tmp_path / "copy")


def test_resume_goes_on_with_the_recorded_options(copy: Path) -> None:
    before = contents(copy)
    first = (copy / "results/pong.csv").read_text()
    log = run("--resume", "snapshots/pong_1.pkl", "--epochs", "3", "--train_steps", "24", cwd=copy)
    assert "--random_seed 7" in log
    assert (copy / "results/pong.csv").read_text().startswith(first)
    table = rows(copy / "results" / "pong.csv")
    assert [(row["epoch"], row["phase"], row["steps"]) for row in table[3:]] == [
        ("2", "train", "24"),
        ("2", "test", "20"),
        ("3", "train", "24"),
        ("3", "test", "20"),
    ]
    assert [row["total_train_steps"] for row in table[3:]] == ["64", "64", "88", "88"]
    assert float(table[3]["total_time"]) > float(table[2]["total_time"])
    after = contents(copy)
    snapshots = {name for name in after if name.endswith(".pkl")}
    assert snapshots - set(before) == {"snapshots/pong_2.pkl", "snapshots/pong_3.pkl"}
    assert after["snapshots/pong_1.pkl"] == before["snapshots/pong_1.pkl"]
    read = read_snapshot(copy / "snapshots/pong_3.pkl")
    assert read.input_shape == (4, 36, 40)
    assert (read.facts["epoch"], read.facts["total_train_steps"]) == (3, 88)
    run("--resume", "snapshots/pong_2.pkl", "--epochs", "3", cwd=copy)  # epoch 3 once more; 40 would be as many as ever
    again = rows(copy / "results" / "pong.csv")
    assert again[:5] == table[:5]
    assert [(row["epoch"], row["phase"], row["steps"]) for row in again[5:]] == [
        ("3", "train", "24"),
        ("3", "test", "20"),
    ]
    assert (copy / "results/pong.csv.1").exists()  # the rows that made way are kept


def test_testing_and_playing_a_snapshot(snapshot: Path, tmp_path: Path) -> None:
    before = contents(snapshot.parent)
    nothing = ["--random_steps", "0", "--train_steps", "0", "--epochs", "1", "--random_seed", "1"]
    log = run(*nothing, "--load_weights", str(snapshot), "--test_steps", "20", "--csv_file", "test.csv", cwd=tmp_path)
    assert "--screen_width 40" in log
    (row,) = rows(tmp_path / "test.csv")
    assert (row["epoch"], row["phase"], row["steps"], row["total_train_steps"]) == ("1", "test", "20", "0")
    game = ["--play_games", "1", "--exploration_rate_test", "1", "--frame_skip", "16", "--csv_file", "play.csv"]
    log = run("--load_weights", str(snapshot), *game, cwd=tmp_path)
    (row,) = rows(tmp_path / "play.csv")
    assert (row["epoch"], row["phase"], row["nr_games"]) == ("0", "play", "1")
    assert row["average_reward"] == row["min_game_reward"] == row["max_game_reward"]
    assert int(row["steps"]) > 100
    assert -21 <= float(row["average_reward"]) <= 21
    assert "Train" not in log
    assert sorted(contents(tmp_path)) == ["play.csv", "test.csv"]
    assert contents(snapshot.parent) == before


def test_filter_page(snapshot: Path, tmp_path: Path) -> None:
    game = ["--play_games", "1", "--exploration_rate_test", "1", "--frame_skip", "16", "--random_seed", "1"]
    pages = ["--visualization_filters", "2", "--visualization_file"]
    log = run("--load_weights", str(snapshot), *game, *pages, "results/pong.html", cwd=tmp_path)
    assert "The filters are in results/pong.html" in log
    page = (tmp_path / "results" / "pong.html").read_text()
    assert "<h1>pong: the game and the filters</h1>" in page
    assert re.search(rf"<dd>{re.escape(str(snapshot))}</dd>.*<dt>Score</dt><dd>-?\d+</dd>", page)
    assert re.findall(r"<h2[^>]*>([\w ]+)", page) == ["The game", "The filters", "conv 1 ", "conv 2 ", "conv 3 "]
    fields = ("last 4 screens. Receptive field: 8×8", "32 channels of conv 1. Receptive field: 20×20")
    for text in (*fields, "64 channels of conv 2. Receptive field: 36×36", "3.75 steps a second"):
        assert text in page
    assert page.count("<h3") == 6
    assert len(page) < 2e6
    run("--load_weights", str(snapshot), *game, *pages, "again.html", cwd=tmp_path)
    assert (tmp_path / "again.html").read_text() == page


def test_help_is_grouped_and_shown_where_output_is_ascii_only(tmp_path: Path) -> None:
    process = start("--help", cwd=tmp_path, PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", LC_ALL="C")
    out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("usage: train.sh GAME")
    assert "--return_lambda X     ? of " in out
    places = [out.index(f"\n{group.title}:\n") for group in GROUPS]
    assert places == sorted(places)
    for group in GROUPS:
        for f in fields(group):
            assert f.metadata["positional"] or f"--{f.name}" in out, f.name
    assert list(tmp_path.iterdir()) == []


# Ctrl-C


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_after_a_signal_ends_at_once_with_no_traceback(first: signal.Signals, tmp_path: Path) -> None:
    process = start("pong", *SHORT, *FILES, "--train_repeat", "1000000", cwd=tmp_path)  # one step that takes an hour
    wait_for(process, "Train 1/1")
    time.sleep(0.3)
    process.send_signal(first)
    wait_for(process, "Ctrl-C again ends at once" if first == signal.SIGINT else "Ctrl-C ends at once")
    process.send_signal(signal.SIGTERM)  # as from an experiment, which may send it twice
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=DEADLINE)
    assert process.returncode == -signal.SIGINT
    assert "Traceback" not in log
    left = ["results/pong.csv", "results/pong.csv.lock", "snapshots/pong.lock"]  # locks that nobody holds
    assert sorted(contents(tmp_path)) == left
    assert [row["phase"] for row in rows(tmp_path / "results/pong.csv")] == ["random"]


# What the user gets wrong: status 2, one line, and no file touched

LITTLE = ["--random_steps", "1", "--train_steps", "0", "--test_steps", "0", "--epochs", "0"]
LITTLE += ["--log_level", "CRITICAL"]


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run `main` in a folder with some files. Return the one line that it prints."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "old.csv").write_text("a,b\nmine,too\n")

    def refuse(*arguments: str) -> str:
        before, paths = contents(tmp_path), sorted(tmp_path.rglob("*"))
        with monkeypatch.context() as patch:
            patch.setattr(signal, "signal", lambda *_: None)
            status = main([*LITTLE, *arguments])
        out, err = capsys.readouterr()
        assert (status, out) == (2, ""), err
        assert err.startswith("error: ")
        assert err.endswith("\n")
        assert err.count("\n") == 1
        assert (contents(tmp_path), sorted(tmp_path.rglob("*"))) == (before, paths)
        return err[7:-1]

    return refuse


def numbers() -> Iterator[tuple[str, str]]:
    """Every numeric option with values that it cannot have."""
    harmless = {("min_reward", "-2"), ("max_reward", "-2")}
    for group in GROUPS:
        hints = get_type_hints(group)
        for f in fields(group):
            hint = hints[f.name]
            if not any(hint in (kind, kind | None) for kind in (int, float)):
                continue
            values = ["-2", "1" + "0" * 31, "nan", "inf", "-inf", "1e999", "9" * 5000, "many", "", "0x10", "1,5"]
            values += ["1.5"] if hint in (int, int | None) else []
            yield from ((f.name, value) for value in values if (f.name, value) not in harmless)


def test_every_number_is_checked(refuse: Callable[..., str]) -> None:
    checked = list(numbers())
    assert len({name for name, _ in checked}) > 25
    for name, value in checked:
        assert f"--{name}" in refuse("pong", f"--{name}={value}"), (name, value)


WRONG = [  # command line, and what the error says
    ("", "no game given"),
    ("''", "no game given"),
    ("pongo", "did you mean pong?"),
    ("'po\nng'", "there is no game po ng"),
    ("roms/nosuchgame.bin", "there is no file roms/nosuchgame.bin, and ale-py has no game nosuchgame"),
    ("file", "is not an Atari 2600 game"),
    ("folder", "folder is a folder, not a ROM"),
    ("x" * 5000, "."),
    ("Nonsense-v0 --environment gym", "cannot make 'Nonsense-v0'"),
    ("pong --random_steps 0 --epochs 0", "nothing to do"),
    ("pong --random_steps 0 --train_steps 0 --test_steps 0", "nothing to do"),
    ("--game pong", "unrecognized argument '--game': the game is given without --game"),
    ("pong --random_sed 1", "did you mean --random_seed"),
    ("pong --seed 1", "did you mean --random_seed"),
    ("pong --epocs=1", "did you mean --epochs"),
    ("pong --xyzzy", "--help lists the options"),
    ("pong -x", "unrecognized argument '-x'"),
    ("pong --screen 1", "ambiguous"),
    ("pong --screen_width 7", "--screen_width"),
    ("pong --screen_height 0", "--screen_height"),
    ("pong --history_length 0", "--history_length"),
    ("pong --batch_size 40 --replay_size 39", "--replay_size 39 is too small"),
    ("pong --clip_error 1e300", r"--clip_error 1e\+300: must be at most 1e\+30"),
    ("pong --max_reward 1e300", r"--max_reward 1e\+300: must be at most 1e\+30"),
    ("pong --replay_size 10000000000 --random_steps 10000000000", "use at most"),
    ("pong --batch_size 1000000 --replay_size 2000000", "of memory"),
    ("pong --min_reward 2 --max_reward 1", "--min_reward"),
    ("pong --backend cpu --datatype float16", "--datatype float16"),
    ("pong --backend gpu --datatype float64", "--datatype float64"),
    ("pong --stochastic_round", "only Neon"),
    ("pong --csv_file file/results.csv", "cannot write file/results.csv: its folder is a file"),
    ("pong --csv_file folder", "--csv_file folder is a folder: .*, as in folder/pong.csv"),
    ("pong --csv_file new/", "--csv_file new/ is a folder: .*, as in new/pong.csv"),
    ("pong --video_file new/", "--video_file new/ is a folder: .*, as in new/pong.mov"),
    ("pong --record_sound_filename new/", "new/ is a folder: .*, as in new/pong.wav"),
    ("pong --play_games 1 --visualization_file new/", "--visualization_file new/ is a folder: .*, as in new/pong.html"),
    ("pong --save_weights_prefix folder/", "folder/ is a folder: .*snapshots/pong"),
    ("pong --save_weights_prefix .", r"--save_weights_prefix \. is a folder"),
    ("pong --save_weights_prefix ''", "--save_weights_prefix: it is empty"),
    ("pong --save_weights_prefix a_1.pkl", "a_1.pkl is a snapshot's name: .*snapshots/"),
    ("--resume ''", "--resume: it is empty"),
    (f"pong --csv_file '{ROOT}/results/pretrained/new.csv'", "no command changes the included files in .*/pretrained"),
    (f"pong --save_weights_prefix '{ROOT}/snapshots/pretrained/pong'", "included files in .*/snapshots/pretrained"),
    (f"pong --record_screen_path '{ROOT}/videos/pretrained'", "no command changes the included files in"),
    ("pong --csv_file " + "x" * 300, "cannot write"),
    ("pong --save_weights_prefix file/pong", "cannot write file/pong_1.pkl"),
    ("pong --record_screen_path file/screens", "cannot write"),
    ("pong --record_sound_filename file/sound.wav", "cannot write"),
    ("ALE/Pong-v5 --environment gym --record_sound_filename a.wav", "has no sound"),
    ("pong --visualization_file a.html", "--visualization_file a.html .*--play_games 1"),
    ("pong --play_games 1 --visualization_file file/a.html", "cannot write file/a.html"),
    ("pong --display_screen maybe", "'maybe' is neither true, false nor terminal"),
    ("pong --display_screen terminal", "standard input and output are not a terminal"),
    ("pong --video_file a.avi", "the name must end in .mov, .mp4 or .gif"),
    ("pong --video_file file/a.mov", "cannot write file/a.mov"),
    ("pong --record_sound_filename a.mp3", "--record_sound_filename a.mp3: the name must end in .wav"),
    ("file --csv_file ./file", "--csv_file ./file would replace file"),
    ("pong --csv_file a.mov --video_file ./a.mov", "--video_file ./a.mov would replace the file of --csv_file"),
    ("nogame --csv_file new/a.csv --save_weights_prefix new/a", "nogame"),
    ("pong --scores_path a", "add --play_games 1"),
    ("pong --play_games 1 --scores_path file/a", "cannot write file/a"),
    ("pong --visualization_filters 0", "--visualization_filters 0: must be at least 1"),
    ("pong --load_weights pong_1.pkl", "there is no snapshot pong_1.pkl"),
    ("--resume pong_1.pkl", "there is no snapshot pong_1.pkl"),
    ("--load_weights folder", "folder"),
    ("--resume file", "file is not a snapshot"),
    ("pong --epochs 2 --csv_file results/old.csv --start_epoch 1", "cannot continue results/old.csv"),
    ("pong --epochs 2 --start_epoch 2 --csv_file a.csv", "--start_epoch 2: must be less than --epochs 2"),
]


@pytest.mark.parametrize(("command", "words"), WRONG, ids=lambda text: text[:60])
def test_wrong_arguments(command: str, words: str, refuse: Callable[..., str]) -> None:
    assert re.search(words, refuse(*shlex.split(command)))


def test_a_page_does_not_replace_the_snapshot_that_it_is_of(refuse: Callable[..., str], snapshot: Path) -> None:
    words = ["--load_weights", str(snapshot), "--play_games", "1", "--visualization_file", str(snapshot)]
    assert f"--visualization_file {snapshot} would replace {snapshot}" in refuse(*words)


def test_only_files_are_replaced(refuse: Callable[..., str], tmp_path: Path) -> None:
    """As root, --csv_file /dev/null must not make a file of it; a link is followed, and stays one."""
    os.mkfifo(tmp_path / "pipe")
    assert "it is not a regular file" in refuse("pong", "--csv_file", "pipe")
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "link.csv").symlink_to("results/new.csv")
    assert main([*LITTLE, "pong", "--csv_file", "link.csv"]) == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert len(rows(tmp_path / "results" / "new.csv")) == 1


def test_gpu_that_is_not_there(refuse: Callable[..., str]) -> None:
    import torch

    if torch.cuda.is_available():
        assert "--device_id 1000" in refuse("pong", "--backend", "gpu", "--device_id", "1000")
    else:
        assert "finds no GPU" in refuse("pong", "--backend", "gpu")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_that_is_read_only(refuse: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "folder").chmod(0o500)
    assert "cannot write folder/pong.csv" in refuse("pong", "--csv_file", "folder/pong.csv")
    assert "cannot write folder/pong_1.pkl" in refuse("pong", "--save_weights_prefix", "folder/pong")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["breakout"], "it has 6 actions, the game 4 .*trained on pong"),
        (["pong", "--minimal_action_set", "false"], "it has 6 actions, the game 18"),
        (["--screen_width", "100"], "its screens are not 100x36"),
        (["--history_length", "2"], "its states have 4 screens, here 2"),
        (["--batch_norm", "true"], "it was made without --batch_norm true"),
    ],
)
def test_snapshot_of_another_network(
    arguments: list[str], words: str, snapshot: Path, refuse: Callable[..., str]
) -> None:
    assert re.search(words, refuse("--load_weights", str(snapshot), *arguments))


def damaged_layers(change: Callable[[dict[str, Any]], None]) -> Callable[[Snapshot], Snapshot]:
    def damage(whole: Snapshot) -> Snapshot:
        layers = [layer._replace(params=dict(layer.params)) for layer in whole.layers]
        change(layers[0].params)
        return whole._replace(layers=layers)

    return damage


@pytest.mark.parametrize("option", ["--load_weights", "--resume"])
def test_damaged_snapshot(option: str, snapshot: Path, refuse: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "pong_1.pkl").write_bytes(snapshot.read_bytes()[:-1])
    assert "pong_1.pkl is not a snapshot" in refuse(option, "pong_1.pkl")


FALSE_FACTS: dict[str, dict[str, Any]] = {
    "options": {"options": 1},
    "text as number": {"options": {"screen_width": "wide"}},
    "number as text": {"options": {"game": 1}},
    "fraction": {"options": {"history_length": 4.5}},
    "choice": {"options": {"environment": "arcade"}},
    "range": {"options": {"frame_skip": -1}},
    "actions": {"actions": 3},
    "action": {"actions": [3]},
    "epoch": {"epoch": "1"},
    "steps": {"total_train_steps": -1},
}


@pytest.mark.parametrize("what", FALSE_FACTS)
def test_snapshot_that_tells_lies(what: str, snapshot: Path, refuse: Callable[..., str], tmp_path: Path) -> None:
    whole = read_snapshot(snapshot)
    write_snapshot(tmp_path / "pong_1.pkl", whole._replace(facts=whole.facts | FALSE_FACTS[what]))
    line = refuse("--resume", "pong_1.pkl", "--epochs", "2")
    assert "is damaged: invalid " in line or "--frame_skip -1: must be at least 1" in line


def test_snapshot_cannot_say_where_to_write(snapshot: Path, tmp_path: Path) -> None:
    whole = read_snapshot(snapshot)
    kept = tmp_path / "mine.txt"
    kept.write_text("mine")
    evil = {"record_sound_filename": str(kept), "record_screen_path": str(tmp_path / "new"), "csv_file": str(kept)}
    facts = whole.facts | {"options": whole.facts["options"] | evil}
    write_snapshot(tmp_path / "pong_1.pkl", whole._replace(facts=facts))
    run("--resume", "pong_1.pkl", "--epochs", "2", "--train_steps", "5", "--test_steps", "0", cwd=tmp_path)
    assert kept.read_text() == "mine"
    assert not (tmp_path / "new").exists()
    assert [row["steps"] for row in rows(tmp_path / "pong.csv")] == ["60", "5"]  # the memory is filled first


def test_what_was_learned_is_saved_when_the_statistics_cannot_be(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:

    def full(*_: object) -> None:
        raise OutputError("cannot write to results/pong.csv: No space left on device")

    monkeypatch.setattr(CSVFile, "write", full)
    assert main(["pong", *SHORT, *FILES, "--random_steps", "0", "--epochs", "3"]) == 2
    assert "error: cannot write to results/pong.csv" in capsys.readouterr().err
    assert read_snapshot(folder / "snapshots/pong_1.pkl").facts["total_train_steps"] == 40


def test_the_score_in_a_snapshot_is_its_own(tmp_path: Path) -> None:
    run("pong", *FILES, *SHORT, cwd=tmp_path)
    assert "test_score" in read_snapshot(tmp_path / "snapshots/pong_1.pkl").facts
    run("--resume", "snapshots/pong_1.pkl", "--epochs", "2", "--test_steps", "0", cwd=tmp_path)
    assert "test_score" not in read_snapshot(tmp_path / "snapshots/pong_2.pkl").facts


@pytest.mark.parametrize("other", ["--load_weights=x.pkl", "--start_epoch=0", "--play_games=1"])
def test_resume_stands_alone(other: str, refuse: Callable[..., str]) -> None:
    assert "does not go with --resume" in refuse("--resume", "pong_1.pkl", other)


FALSE_LAYERS: dict[str, Callable[[Snapshot], Snapshot]] = {
    "no weights": damaged_layers(lambda params: params.clear()),
    "one weight": damaged_layers(lambda params: params.update(W=np.ones(1, np.float32))),
    "three axes": damaged_layers(lambda params: params.update(W=params["W"][None])),
    "flat": damaged_layers(lambda params: params.update(W=params["W"].ravel())),
    "no layers": lambda whole: whole._replace(layers=[]),
    "small states": lambda whole: whole._replace(
        layers=[layer._replace(states=[np.ones(3, np.float32)]) for layer in whole.layers]
    ),
    "states of text": lambda whole: whole._replace(layers=[layer._replace(states=["text"]) for layer in whole.layers]),
}


@pytest.mark.parametrize("what", FALSE_LAYERS)
def test_snapshot_of_layers_that_make_no_sense(
    what: str, snapshot: Path, refuse: Callable[..., str], tmp_path: Path
) -> None:
    write_snapshot(tmp_path / "pong_1.pkl", FALSE_LAYERS[what](read_snapshot(snapshot)))
    refuse("--load_weights", "pong_1.pkl")


@pytest.mark.parametrize("arguments", [["file"], ["--resume", "snapshots/pong_7.pkl"]])
def test_wrong_arguments_of_the_program_itself(arguments: list[str], copy: Path) -> None:
    """The emulator, for one, ends the whole process on a ROM that it cannot read."""
    (copy / "file").write_text("mine\n")
    before = contents(copy)
    process = start(*arguments, cwd=copy)
    out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out) == (2, "")
    assert [line.startswith("error: ") for line in err.splitlines()].count(True) == 1
    assert err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in err
    assert contents(copy) == before


# Games played

SMALL = ["--screen_width", "36", "--screen_height", "36", "--random_seed", "1"]


@pytest.mark.parametrize(("games", "side_by_side"), [(2, 1), (4, 3)])
def test_scores_of_games_played(games: int, side_by_side: int, folder: Path, capsys: Any) -> None:
    """Games are played to their end, also side by side."""
    play = ["pong", "--play_games", str(games), "--num_envs", str(side_by_side), "--max_game_seconds", "4", *SMALL]
    assert main([*play, "--random_starts", "4", "--scores_path", "s", "--frame_skip", "8"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    numbers = [str(number + 1) for number in range(games)]
    assert [line[0] for line in lines] == ["game", *numbers, "mean", "sd", "min", "max"]
    assert {line[2] for line in lines[1 : games + 1]} == {"26"}  # 240 frames, 32 of them no-ops
    header, *table = (folder / "s" / "scores.csv").read_text().splitlines()
    assert (header, [row.split(",")[0] for row in table]) == ("game,score,steps", numbers)
    assert {game["steps"] for game in json.loads((folder / "s" / "scores.json").read_text())["games"]} == {26}


def test_a_test_of_whole_games(folder: Path) -> None:
    words = ["pong", *SHORT, *FILES, "--num_envs", "2", "--test_games", "3", "--max_game_seconds", "2"]
    assert main([*words, "--random_starts", "4"]) == 0
    test = rows(folder / "results" / "pong.csv")[-1]
    assert (test["phase"], test["nr_games"], test["steps"]) == ("test", "3", str(3 * 26))
    assert read_snapshot(folder / "snapshots" / "pong_1.pkl").facts["test_games"] == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_scores_are_kept_where_they_cannot_be_shown(tmp_path: Path) -> None:
    words = ["pong", "--play_games", "1", "--max_game_seconds", "1", "--scores_path", "s", "--backend", "cpu"]
    with open("/dev/full", "w") as full:
        command = [sys.executable, str(MAIN), *words]
        result = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, timeout=DEADLINE)
    assert result.returncode == 2
    assert "No space left on device" in result.stderr
    assert (tmp_path / "s" / "scores.csv").read_text().startswith("game,score,steps\n1,")


def test_scores_of_an_earlier_run_outlive_one_that_is_broken_off(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, caplog: pytest.LogCaptureFixture
) -> None:
    play = ["pong", "--max_game_seconds", "2", "--random_seed", "1", "--scores_path", "s"]
    assert main([*play, "--play_games", "2"]) == 0
    before = contents(folder)
    capsys.readouterr()

    whole = Agent.play

    def one_game(agent: Agent, games: int) -> None:
        whole(agent, 1)
        agent.interrupted = True

    monkeypatch.setattr(Agent, "play", one_game)
    assert main([*play, "--play_games", "3"]) == 130
    assert contents(folder) == before
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()][:3] == ["game", "1", "mean"]
    assert "Only 1 of 3 games: nothing new in s" in caplog.text


def test_gymnasium_scores_are_those_of_whole_games(folder: Path, capsys: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Without moves before the agent's first one: the car, which never arrives, has 200 steps that cost 1 each."""
    play = ["MountainCar-v0", "--environment", "gym", "--play_games", "1", "--exploration_rate_test", "0"]
    with caplog.at_level("INFO"):
        assert main([*play, *SMALL]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["1", "-200", "200"]
    assert "No action of MountainCar-v0 is called NOOP: --random_starts 30 has no effect" in caplog.text


@pytest.mark.parametrize(("words", "steps"), [([], {30}), (["--random_starts", "9"], {21, 22, 23, 24, 25, 26})])
def test_games_start_as_in_the_training_unless_options_differ(
    words: list[str], steps: set[int], folder: Path, capsys: Any
) -> None:
    path = with_actions(folder / "pong_1.pkl", 6, {"game": "pong", "options": {"random_starts": 0}})
    play = ["--load_weights", str(path), "--play_games", "1", "--max_game_seconds", "2"]  # 30 steps
    assert main([*play, *THREE, "--random_seed", "1", *words]) == 0
    assert int(capsys.readouterr().out.splitlines()[1].split()[2]) in steps


def test_a_game_recorded_is_one_game(folder: Path) -> None:
    """Not the beginning of the next one too."""
    play = ["pong", "--play_games", "1", "--max_game_seconds", "3", *SMALL]
    assert main([*play, "--record_screen_path", "frames"]) == 0
    assert sorted(path.name for path in (folder / "frames").iterdir())[-1] == "000181.png"


def test_the_filter_page_leaves_out_games_that_the_user_adds(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    cards: list[Any] = []
    keys = iter(["s" * 9, *("" for _ in range(9))])

    def draw(scene: Any) -> None:
        nonlocal keys
        if scene.card and scene.card not in cards:
            cards.append(scene.card)
            keys = iter("r" if len(cards) == 1 else "q")

    display = Mock(unused_keys=(), draw=draw, pressed=lambda: next(keys, ""), held=set)
    monkeypatch.setattr("simple_dqn.watching.make.make_display", lambda *_: display)
    play = ["pong", "--play_games", "1", "--max_game_seconds", "2", "--random_seed", "1"]
    assert main([*play, "--visualization_file", "page.html", "--backend", "cpu"]) == 0
    assert len(cards) == 2
    assert capsys.readouterr().out.splitlines()[2].split()[0] == "2"
    page = (folder / "page.html").read_text()
    assert "<dt>Score</dt>" in page  # of one game
    assert "game 2" not in page


def test_no_library_for_windows_or_films_unless_asked_for(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom main import main\n"
        "main(['pong', '--play_games', '1', '--max_game_seconds', '1'])\n"
        "print(sorted({'pygame', 'av', 'termios', 'matplotlib'} & set(sys.modules)))"
    )
    variables = os.environ | {"PYTHONPATH": os.pathsep.join([str(MAIN.parent), str(MAIN.parents[1])])}
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr


@pytest.mark.parametrize(
    "script", ["src/main.py", "src/plot.py", "src/experiment_report.py", "benchmarks/faults.py", "benchmarks/peers.py"]
)
def test_python_settings_do_not_keep_a_script_from_its_modules(script: str, tmp_path: Path) -> None:
    (tmp_path / "math.py").write_text("raise SystemExit('the wrong one')")
    command = [sys.executable, str(MAIN.parents[1] / script), "--help"]
    variables = os.environ | {"PYTHONSAFEPATH": "1"}
    result = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE)
    assert result.returncode == 0, result.stderr


def test_an_epoch_whose_loss_is_not_finite_leaves_all_as_it_was_before(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(copy)
    before = contents(copy)
    diverge = ["--learning_rate", "1000", "--train_steps", "10000", "--train_frequency", "1", "--epochs", "2"]
    assert main(["--resume", "snapshots/pong", *diverge]) == 2
    line = "error: The loss is NaN or infinite. This epoch was not saved. Use a smaller --learning_rate.\n"
    assert capsys.readouterr().err.endswith(line)
    assert contents(copy) == before


# Pong of 2015, which had three actions


def with_actions(path: Path, number: int, facts: dict[str, Any]) -> Path:
    """A snapshot of a network that has so many outputs."""
    options, backend = DeepQNetworkOptions(), BackendOptions(backend="cpu")
    write_snapshot(path, Snapshot(DeepQNetwork(number, (4, 36, 40), options, backend, 1).layers(), (4, 36, 40), facts))
    return path


THREE = ["--screen_width", "40", "--screen_height", "36", "--backend", "cpu", "--batch_size", "8"]


def test_three_actions_of_pong_are_those_of_2015(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with_actions(folder / "snapshots" / "pong_141.prm", 3, {})
    steps = ["--train_steps", "10", "--test_steps", "5", "--random_steps", "20"]
    simple_dqn_main.run(["--resume", "snapshots/pong_141.prm", "--epochs", "142", *steps, *THREE])
    assert "pong_141.prm has 3 actions, those of Pong in 2015: NOOP RIGHT LEFT" in caplog.text
    later = read_snapshot(folder / "snapshots" / "pong_142.pkl")
    assert later.facts["actions"] == ["NOOP", "RIGHT", "LEFT"]
    caplog.clear()
    test = ["--random_steps", "0", "--train_steps", "0", "--epochs", "1", "--test_steps", "5", "--backend", "cpu"]
    simple_dqn_main.run(["--load_weights", "snapshots/pong_142.pkl", *test])  # it says which actions it has
    assert "those of Pong" not in caplog.text
    assert "The actions of" not in caplog.text


@pytest.mark.parametrize(
    ("game", "actions", "facts", "words"),
    [
        ("breakout", 3, {}, []),
        ("pong", 4, {}, []),
        ("pong", 3, {}, ["--minimal_action_set", "false"]),
        ("pong", 3, {"game": "breakout", "actions": ["NOOP", "RIGHT", "LEFT"]}, []),
    ],
)
def test_other_networks_get_no_actions_of_2015(
    tmp_path: Path, game: str, actions: int, facts: dict[str, Any], words: list[str]
) -> None:
    path = with_actions(tmp_path / f"{game}_1.pkl", actions, facts)
    test = ["--random_steps", "0", "--train_steps", "0", "--epochs", "1", "--test_steps", "5"]
    with pytest.raises(SnapshotError, match=f"it has {actions} actions, the game "):
        simple_dqn_main.run([game, "--load_weights", str(path), *test, *THREE, *words])


def test_actions_that_no_emulator_has_are_refused(tmp_path: Path) -> None:
    path = with_actions(tmp_path / "pong_1.pkl", 3, {"game": "pong", "actions": ["NOOP", "RIGHT", "JUMP"]})
    with pytest.raises(GameError, match="pong has no action 'JUMP'"):
        simple_dqn_main.run(["--load_weights", str(path), *THREE])
