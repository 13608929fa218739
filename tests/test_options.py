"""Options: flags as the original had them, and one clear line for what is not one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from simple_dqn.errors import OptionError
from simple_dqn.options import Options, build, option, parse


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
