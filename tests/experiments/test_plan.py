"""The plan of an experiment: one name, one plan; bad input is refused before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from main import GROUPS
from simple_dqn.experiments.command import main
from simple_dqn.experiments.plan import Plan, read_plan

PLAN = Plan("try", ["try"], ["--epochs", "2"], ["pong"], {"plain": [], "double": ["--double_dqn", "true"]}, [1, 2])


def error_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that fails with status 2."""
    assert main(GROUPS, words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", "no name given"),
        ("a/b --games pong", "a/b is no name"),
        ("try", "no games given"),
        ("try pong", "games are given by --games"),
        ("try --games pong pongo breakou", "there is no game pongo: did you mean pong?"),
        ("try --games pong breakout breakou", "there is no game breakou: did you mean breakout?"),
        ("try --games pong roms/pong.bin", "pong and roms/pong.bin have the same name"),
        ("try --games pong --doubel_dqn true", "did you mean --double_dqn?"),
        ("try --games pong --learning_rate -1", "--learning_rate"),
        ("try --games pong --seeds 0", "--seeds 0: must be at least 1"),
        ("try --games pong --cores 0", "--cores 0: must be at least 1"),
        ("try --games pong --gpus 1.5", "--gpus 1.5: use a whole number, or a part of one GPU"),
        ("try --games pong --random_seed 3", "--random_seed is not for experiments: use --seeds"),
        ("try --games pong --checkpoint false", "--checkpoint is not for experiments"),
        ("try --games pong --folder missing", "--folder missing: there is no such folder"),
        ("try --games pong --variant plain --variant|double --doubel_dqn true", "variant double: unrecognized"),
        ("try --games pong --variant plain --variant|plain --double_dqn true", "two variants are called plain"),
        ("try --games pong --variant|--double_dqn true", "begin with a name"),
        ("try --games pong --variant| ", "begin with a name"),
        ("try --games pong --variant|double --csv_file a.csv", "--csv_file is not for experiments"),
        ("try --games pong --variant|double '--double_dqn", "no closing quotation"),
        ("try --games pong --variant|fast --num_envs 0", "variant fast: --num_envs 0"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(
    words: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    first, _, variant = words.partition("|")
    assert expected in error_of([*first.split(), *([variant] if variant else [])], capsys)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--games", "breakout"], "games: pong then, breakout now"),
        (["--games", "pong", "--seeds", "1"], "seeds: 1 2 then, 1 now"),
        (["--games", "pong", "--seeds", "2", "--epochs", "3"], "options: --epochs 2 then, --epochs 3 now"),
        (["--games", "pong", "--seeds", "2", "--epochs", "2"], "variants: plain and 'double --double_dqn true' then"),
    ],
)
def test_another_plan_of_the_same_name_is_refused_with_what_differs(
    words: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    PLAN.write(tmp_path)
    before = PLAN.path(tmp_path).read_bytes()
    monkeypatch.chdir(tmp_path)
    line = error_of(["try", *words], capsys)
    assert expected in line
    assert "Choose another name, or continue it with ./experiment.sh try" in line
    assert PLAN.path(tmp_path).read_bytes() == before


@pytest.mark.parametrize(("seeds", "text"), [([1], "try is complete: 1 run"), ([1, 2], "try is complete: 2 runs")])
def test_an_experiment_that_is_complete_says_so(
    seeds: list[int], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Plan("try", ["try"], [], ["pong"], {"plain": []}, seeds).write(tmp_path)
    for seed in seeds:
        (tmp_path / "results" / "try" / f"pong_plain_{seed}.json").write_text('{"state": "complete", "legs": []}')
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO")
    assert main(GROUPS, ["try"]) == 0
    assert caplog.messages == [text]


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    PLAN.write(tmp_path)
    assert read_plan("try", tmp_path) == PLAN


@pytest.mark.parametrize("folder", ["results", "snapshots"])
def test_a_folder_with_other_files_is_no_experiment(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / folder / "try").mkdir(parents=True)
    (tmp_path / folder / "try" / "pong.csv").touch()
    monkeypatch.chdir(tmp_path)
    assert "holds files of no experiment" in error_of(["try", "--games", "pong"], capsys)


def test_a_damaged_plan_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    PLAN.write(tmp_path)
    PLAN.path(tmp_path).write_text('{"version": 1}')
    monkeypatch.chdir(tmp_path)
    assert "results/try/experiment.json" in error_of(["try", "--games", "pong"], capsys)


def test_the_folder_of_files_that_ship_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(__file__).resolve().parents[2]
    assert "no command changes" in error_of(["pretrained", "--games", "pong", "--folder", str(root)], capsys)
