"""Options: flags as the original had them, and one clear line for what is not one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import main
from simple_dqn.errors import OptionError
from simple_dqn.options import Options, build, option, parse

PRESETS = Path(__file__).resolve().parent.parent / "presets"


@dataclass(frozen=True)
class Toy(Options):
    title = "Toy"
    game: str = option("", "what to play", positional=True)
    shiny: bool = option(False, "whether it shines")
    size: int = option(3, "how many", at_least=1, at_most=10**9)
    rate: float = option(0.5, "how fast, 100% at most", above=0, at_most=1)
    colour: str = option("red", "which colour", choices=("red", "blue"))
    file: str | None = option(None, "where to")
    seed: int | None = option(None, "seed", at_least=0)
    bits: bool | int = option(False, "bits", optional_value=True)


def read(*argv: str) -> dict[str, Any]:
    return parse([Toy], argv, usage="toy", description="A toy.", epilog="")


@pytest.mark.parametrize(
    ("argv", "values"),
    [
        ([], {}),
        (["pong"], {"game": "pong"}),
        (["--size", "5", "pong", "--rate=0.25"], {"game": "pong", "size": 5, "rate": 0.25}),
        (["-size", "5", "-file=x y", "-colour", "blue"], {"size": 5, "file": "x y", "colour": "blue"}),
        (["--size", "1e6", "--seed", "0"], {"size": 1_000_000, "seed": 0}),
        (["--bits"], {"bits": True}),
        (["--bits", "10"], {"bits": 10}),
        (["--bits", "false"], {"bits": False}),
        (["--rate", "-1e3", "--size", "-2"], {"rate": -1000, "size": -2}),
        *((["--shiny", word], {"shiny": True}) for word in ("yes", "true", "T", "1", "TRUE")),
        *((["--shiny", word], {"shiny": False}) for word in ("no", "false", "F", "0", "False")),
    ],
)
def test_reads(argv: list[str], values: dict[str, Any]) -> None:
    assert read(*argv) == values


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--shiny", "maybe"], "argument --shiny: 'maybe' is neither true nor false"),
        (["--size", "few"], "argument --size: 'few' is not a number"),
        (["--size", "1.5"], "argument --size: '1.5' is not a whole number"),
        (["--size", "nan"], "'nan' is not a finite number"),
        (["--rate", "inf"], "'inf' is not a finite number"),
        (["--colour", "green"], "argument --colour: invalid choice: 'green'"),
        (["--size"], "argument --size: expected one argument"),
        (["--sizes", "3"], "unrecognized argument '--sizes': did you mean --size?"),
        (["pong", "breakout"], "unrecognized argument 'breakout'"),
    ],
)
def test_says_what_is_wrong(argv: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=message.replace("?", r"\?")) as error:
        read(*argv)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 0}, "--size 0: must be at least 1"),
        ({"size": 10**30}, "--size 1000000000000000000000000000000: must be at most 1000000000"),
        ({"rate": 0.0}, "--rate 0.0: must be above 0"),
        ({"rate": 1.5}, "--rate 1.5: must be at most 1"),
        ({"seed": -1}, "--seed -1: must be at least 0"),
    ],
)
def test_bounds(values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        build(Toy, values)


@dataclass(frozen=True)
class Files(Options):
    title = "Files"
    files: tuple[str, ...] = option((), "which files", positional=True)
    size: int = option(3, "how many")
    loud: bool = option(False, "tell of it", optional_value=True)


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("", {}),
        ("--size 5", {"size": 5}),
        ("a b", {"files": ("a", "b")}),
        ("a --size 5 b c", {"files": ("a", "b", "c"), "size": 5}),
        ("--size 5 a b", {"files": ("a", "b"), "size": 5}),
        ("-files a b --size 5 c", {"files": ("a", "b", "c"), "size": 5}),
        ("a --files=b", {"files": ("a", "b")}),
        ("--loud a", {"files": ("a",), "loud": True}),
        ("a --loud --size 5", {"files": ("a",), "loud": True, "size": 5}),
        ("--loud no a", {"files": ("a",), "loud": False}),
    ],
)
def test_any_number_of_words(words: str, values: dict[str, Any]) -> None:
    assert parse([Files], words.split(), usage="", description="", epilog="") == values


def test_build_takes_its_own_and_leaves_the_rest() -> None:
    toy = build(Toy, {"size": 7, "other": 3})
    assert (toy.size, toy.rate, toy.seed) == (7, 0.5, None)


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        read("--help")
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "Toy:" in text
    assert "--size N" in text
    assert "(default: 3)" in text
    assert "100% at most" in text
    assert "(default: false)" in text


# Files of options


def test_a_file_of_options_stands_for_its_words(tmp_path: Path) -> None:
    file = tmp_path / "mine"
    file.write_text("# what I like\n--size -2   # a negative number\n\n-rate 1e-3 --file 'two words'\n")
    assert read("pong", f"@{file}", "--rate", "0.5") == {"game": "pong", "size": -2, "rate": 0.5, "file": "two words"}


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "No such file"), *((text, "not a file of options") for text in (b"--game 'open", b"\xff\xfe", b"a\0b"))],
)
def test_a_file_of_options_that_cannot_be_read(tmp_path: Path, content: bytes | None, why: str) -> None:
    file = tmp_path / "mine"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(OptionError, match=why):
        read(f"@{file}")


def test_presets_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    values = parse(main.GROUPS, ["pong", "@presets/nature2015"], usage="", description="", epilog="")
    assert values["target_steps"] == 40_000
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "nature2015").write_text("--target_steps 7")
    values = parse(main.GROUPS, ["pong", "@presets/nature2015"], usage="", description="", epilog="")
    assert values["target_steps"] == 7


@pytest.mark.parametrize("preset", sorted(PRESETS.iterdir()), ids=lambda p: p.name)
def test_every_preset_can_be_used(preset: Path) -> None:
    values = parse(main.GROUPS, ["pong", f"@{preset}"], usage="", description="", epilog="")
    for group in main.GROUPS:
        build(group, values)
    assert len(values) > 2
