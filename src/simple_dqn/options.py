"""Options: frozen dataclasses become the original's flags. The only module that knows argparse.

A class that has options keeps them in a frozen dataclass right above itself:

    @dataclass(frozen=True)
    class ReplayMemoryOptions(Options):
        title = "Replay memory"
        replay_size: int = option(1_000_000, "transitions kept; new ones overwrite the oldest", at_least=1)

`main` lists these dataclasses. `parse` reads their options from the command line. `build` makes the instances.
"""

from __future__ import annotations

import argparse
import difflib
import math
import re
import shlex
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn, TypeVar, get_type_hints

from simple_dqn.errors import OptionError, reason
from simple_dqn.saving.files import ROOT

# What a snapshot remembers of an option:
#   never: nothing. For paths and displays, so that equal runs make equal snapshots on any machine.
#   run: a resumed run uses its value again, unless the command line gives another.
#   play: like run, also for a test and for a training that starts with the snapshot's weights.
#   task: like play, but a resumed run cannot change it.
#   network: like task, and the snapshot's weights fit no other value.
Kept = Literal["never", "run", "play", "task", "network"]
_YES, _NO = ("yes", "true", "t", "1"), ("no", "false", "f", "0")


def option(
    default: Any,
    help: str,
    *,
    kept: Kept = "run",
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
    default_text: str | None = None,
    positional: bool = False,
    optional_value: bool = False,
) -> Any:
    """Declare a dataclass field that is also a command-line option.

    An option of type `tuple[str, ...]` takes one or more words, and may be given several times. If it is positional,
    its words may stand before, between and after the flags. It is also a flag.

    Args:
        default: its value if the command line does not give one.
        help: one line for --help.
        kept: what happens with it when a run starts from a snapshot; see `Kept`.
        at_least, at_most, above: bounds of a number.
        choices: the words that it may be.
        default_text: the default in words, if the value does not explain itself.
        positional: it is given without its name.
        optional_value: the flag may stand alone, meaning True.
    """
    metadata = dict(help=help, kept=kept, at_least=at_least, at_most=at_most, above=above, choices=choices)
    metadata |= dict(default_text=default_text, positional=positional, optional_value=optional_value)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Options:
    """Base of every options dataclass. It checks each field against its declared bounds.

    Raises:
        OptionError: a value lies outside its bounds.
    """

    title: ClassVar[str]

    def __post_init__(self) -> None:
        for f in fields(self):
            _check_bounds(f, getattr(self, f.name))


AnyOptions = TypeVar("AnyOptions", bound=Options)


def parse(
    groups: Sequence[type[Options]], argv: Sequence[str], *, usage: str, description: str, epilog: str
) -> dict[str, Any]:
    """Return the options that `argv` names, by field name. Defaults are added later.

    @FILE stands for the words in FILE, in which # begins a comment. If an option is given twice, the last one counts.

    Raises:
        OptionError: an option is unknown or malformed, or there is no such file.
    """
    parser = _Parser(
        usage=usage,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    for group in groups:
        arguments, hints = parser.add_argument_group(group.title), get_type_hints(group)
        for f in fields(group):
            _add_argument(arguments, f, hints[f.name])
    known_fields = [f for group in groups for f in fields(group)]
    names = [f.name for f in known_fields]
    flags = [f"--{f.name}" for f in known_fields if f.metadata["optional_value"]]
    given = (word for short in argv for word in _words(short))
    words = _with_true(_with_values(_with_two_dashes(word, names) for word in given), flags)
    known, unknown = parser.parse_known_args(words)
    values = vars(known)
    for name in (
        f.name for f in known_fields if f.default == () and f.metadata["positional"]
    ):  # parse_known_intermixed_args would change the order
        more = [word for word in unknown if not word.startswith("-")]
        unknown = [word for word in unknown if word.startswith("-")]
        if more or name in values:
            values[name] = (*values.get(name, ()), *more)
    if unknown:
        positional = {f.name for f in known_fields if f.metadata["positional"]}
        raise OptionError(_unknown(unknown[0], names, positional))
    return values


def build(group: type[AnyOptions], values: Mapping[str, Any]) -> AnyOptions:
    """Return an instance of `group` from those `values` that are its fields. All other values are ignored.

    Raises:
        OptionError: a value lies outside its bounds.
    """
    names = {f.name for f in fields(group)}
    return group(**{name: value for name, value in values.items() if name in names})


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise OptionError(f"{message[:1].lower()}{message[1:]} (--help lists the options)")


def _words(word: str) -> list[str]:
    """Return [`word`], or the words of the file that it names after an @."""
    if not word.startswith("@"):
        return [word]
    path = Path(word[1:])
    # A preset is found from other folders too.
    path = path if path.exists() or path.is_absolute() else ROOT / path
    try:
        text = path.read_text(encoding="utf-8")
        if "\0" in text:
            raise ValueError
        return shlex.split(text, comments=True)
    except (OSError, ValueError) as error:
        presets = sorted(f"@presets/{p.name}" for p in (ROOT / "presets").glob("*"))
        why = reason(error) if isinstance(error, OSError) else "it is not a file of options"
        raise OptionError(f"cannot read options from {word[1:]}: {why}; there are {', '.join(presets)}") from None


def _add_argument(arguments: argparse._ArgumentGroup, f: Field[Any], hint: Any) -> None:
    meta = f.metadata
    if meta["positional"] and hint == tuple[str, ...]:
        arguments.add_argument(f.name, nargs="*", action="extend", help=meta["help"])
        arguments.add_argument(f"--{f.name}", nargs="+", action="extend", help=argparse.SUPPRESS)
        return
    if meta["positional"]:
        arguments.add_argument(f.name, nargs="?", help=meta["help"])
        return
    shown = meta["default_text"] or as_word(f.default)
    extra: dict[str, Any] = dict(nargs="?", const=True) if meta["optional_value"] else {}
    extra |= dict(nargs="+", action="extend") if hint == tuple[str, ...] else {}
    if hint == bool | str:
        extra |= dict(type=partial(_read_bool_or_word, meta["choices"]), metavar="|".join(meta["choices"]))
    elif meta["choices"]:
        extra |= dict(choices=meta["choices"])
    else:
        extra |= _reader_and_metavar(hint)
    text = meta["help"] + (f" (default: {shown})" if shown else "")
    arguments.add_argument(f"--{f.name}", help=text.replace("%", "%%"), **extra)


def _reader_and_metavar(hint: Any) -> dict[str, Any]:
    for kind, reader, metavar in (
        (bool, _read_bool, "true|false"),
        (int, _read_int, "N"),
        (float, _read_float, "X"),
        (bool | int, _read_bool_or_int, "BITS"),
    ):
        if hint == kind or hint == kind | None:
            return dict(type=reader, metavar=metavar)
    return dict(type=_read_name, metavar="NAME")


def _read_bool(text: str) -> bool:
    if text.lower() not in _YES + _NO:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() in _YES


def _read_bool_or_word(choices: Sequence[str], text: str) -> bool | str:
    if text.lower() not in (*choices, *_YES, *_NO):
        raise argparse.ArgumentTypeError(f"{text!r} is neither {', '.join(choices[:-1])} nor {choices[-1]}")
    return _read_bool(text) if text.lower() in _YES + _NO else text.lower()


def _read_bool_or_int(text: str) -> bool | int:
    return _read_int(text) if text.isdigit() else _read_bool(text)


def _read_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        pass
    number = _read_float(text)  # "1e6" is a whole number too
    if number != int(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(number)


def _read_float(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return number


def _read_name(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("it is empty: give it a value, or leave the option out")
    return text


def _check_bounds(f: Field[Any], value: Any) -> None:
    meta = f.metadata
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if not math.isfinite(value):
        raise OptionError(f"--{f.name} {value}: must be a finite number")
    for wrong, words in (
        (meta["at_least"] is not None and value < meta["at_least"], f"at least {meta['at_least']}"),
        (meta["above"] is not None and value <= meta["above"], f"above {meta['above']}"),
        (meta["at_most"] is not None and value > meta["at_most"], f"at most {meta['at_most']}"),
    ):
        if wrong:
            raise OptionError(f"--{f.name} {value}: must be {words}")


def as_word(default: Any) -> str:
    """Return a value as it is written on the command line."""
    if isinstance(default, bool):
        return str(default).lower()
    return "" if default is None else str(default)


def _with_two_dashes(word: str, names: Iterable[str]) -> str:
    """Return the flag `word` with two dashes, because the announcement of 2015 writes `-csv_file`."""
    name = re.match(r"-(\w{2,})(?==|$)", word)
    return f"-{word}" if name and name[1] in names else word


def _with_values(words: Iterable[str]) -> list[str]:
    """Join an option and its negative value, because argparse would take -1e3 for another option."""
    joined: list[str] = []
    for word in words:
        if re.match(r"-\.?\d", word) and joined and re.fullmatch(r"--\w+", joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _with_true(words: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Add =true to flags without a value, because argparse would take a file's name behind them as the value."""
    following = [*words, ""][1:]
    return [
        f"{word}=true" if word in flags and not (after.isdigit() or after.lower() in _YES + _NO) else word
        for word, after in zip(words, following, strict=True)
    ]


def _unknown(word: str, names: Iterable[str], positional: Container[str]) -> str:
    name = word.lstrip("-").split("=")[0]
    close = difflib.get_close_matches(name, names, n=1) or [n for n in names if n.endswith(f"_{name}")]
    if not (close and word.startswith("-")):
        hint = "--help lists the options"
    elif close[0] in positional:
        hint = f"the {close[0]} is given without --{close[0]}"
    else:
        hint = f"did you mean --{close[0]}?"
    return f"unrecognized argument {word!r}: {hint}"
