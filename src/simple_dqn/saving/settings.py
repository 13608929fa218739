"""The options of a run, from the command line and from the snapshot that it starts from."""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, get_type_hints

from simple_dqn.errors import OptionError, SnapshotError
from simple_dqn.games.roms import game_of, same_game
from simple_dqn.options import Options, as_word, build
from simple_dqn.saving.files import ships
from simple_dqn.saving.names import number_of, prefix_of
from simple_dqn.saving.start import Start, named_by_epoch, start_from_weights, start_where_it_stopped

logger = logging.getLogger(__name__)

Groups = Sequence[type[Options]]
_NAMED_AFTER_SNAPSHOT = (
    "record_screen_path",
    "record_sound_filename",
    "video_file",
    "visualization_file",
    "scores_path",
)
_FILES = ("save_weights_prefix", "csv_file")
_COUNTERS = ("epoch", "epoch_began", "total_train_steps", "weight_updates", "best_epoch")


def settle(groups: Groups, given: dict[str, Any]) -> tuple[dict[str, Any], Start | None]:
    """Complete the options of the command line with those of the snapshot that the run starts from.

    Args:
        groups: the dataclasses of all options.
        given: the options of the command line, by name. They come before those of the snapshot.

    Returns:
        The options that are not at their default, and the snapshot or checkpoint, if any.

    Raises:
        SimpleDQNError: the snapshot is missing or damaged, or does not go with the options.
    """
    resumed = given.get("resume")
    for name in ("load_weights", "start_epoch", "play_games"):
        if resumed and name in given:
            raise OptionError(f"--{name} does not go with --resume, which takes everything from its snapshot")
    path = resumed or given.get("load_weights")
    if not path:
        if not given.get("game"):
            raise OptionError("no game given: name a ROM file such as roms/breakout.bin, or a game such as breakout")
        return given, None
    if resumed:
        given = given | {"resume": str(named_by_epoch(Path(path)))}
    start = start_where_it_stopped(Path(given["resume"])) if resumed else start_from_weights(Path(path))
    known = _fields_by_name(groups)
    for invalid in _invalid_facts(groups, start.facts):
        raise SnapshotError(f"{start.path} is damaged: invalid {invalid}")
    recorded = start.facts.get("options", {})
    unknown = [f"--{name}" for name in recorded if name not in known]
    if unknown:
        logger.warning("%s was made with options that are unknown here: %s", start.path, ", ".join(unknown))
    wanted = ("run", "play", "task", "network") if resumed else ("play", "task", "network")
    taken = {
        name: value for name, value in recorded.items() if name in known and known[name].metadata["kept"] in wanted
    }
    if resumed:
        prefix = given.get("save_weights_prefix")
        taken |= _files_to_continue(start, prefix)
        renamed = prefix is not None and Path(prefix).resolve() != Path(taken["save_weights_prefix"]).resolve()
        start = start._replace(renamed=renamed and "csv_file" not in given)
        _require_same_task(groups, start, given)
    taken.setdefault("game", game_of(start.path.stem))
    given = given | _named_after(start.path, given)
    return {**taken, **given}, start


def recorded_options(groups: Groups, values: dict[str, Any]) -> dict[str, Any]:
    """Return the value of each option that a snapshot records, by name."""
    built = [(build(group, values), fields(group)) for group in groups]
    return {f.name: getattr(group, f.name) for group, known in built for f in known if f.metadata["kept"] != "never"}


def log_options(groups: Groups, given: dict[str, Any], values: dict[str, Any], start: Start | None) -> None:
    """Log the options that are not at their default: those `given`, and those of `values` from the snapshot.

    The files are left out if they are named as train.sh and resume.sh name them.
    """
    known = _fields_by_name(groups)
    prefix, csv_file = (values.get(name) for name in _FILES)
    if prefix and Path(prefix).parent == Path("snapshots") and csv_file == csv_file_of(Path(prefix)):
        given, values = ({n: v for n, v in options.items() if n not in _FILES} for options in (given, values))

    def words(values: dict[str, Any]) -> str:
        changed = {name: as_word(value) for name, value in values.items() if value != known[name].default}
        flags = ([] if known[name].metadata["positional"] else [f"--{name}"] for name in changed)
        return shlex.join(word for flag, value in zip(flags, changed.values(), strict=True) for word in (*flag, value))

    taken = words({name: value for name, value in values.items() if name not in given})
    parts = [words({name: values[name] for name in given}), f"from {start.path}: {taken}" if start and taken else ""]
    logger.info("Options: %s", "; ".join(filter(None, parts)) or "all at their defaults")


def _fields_by_name(groups: Groups) -> dict[str, Field[Any]]:
    return {f.name: f for group in groups for f in fields(group)}


def _named_after(snapshot: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Return the options with file names. {snapshot} in them becomes pong_10, for example, and {name} pong."""
    name = prefix_of(snapshot).name
    paths = {option: str(given[option]) for option in _NAMED_AFTER_SNAPSHOT if option in given}
    return {option: path.replace("{snapshot}", snapshot.stem).replace("{name}", name) for option, path in paths.items()}


def _invalid_facts(groups: Groups, facts: dict[str, Any]) -> Iterator[str]:
    """Yield the facts of a snapshot that have wrong types, because the file may come from anywhere."""
    options, actions = facts.get("options", {}), facts.get("actions", [])
    yield from (name for name in _COUNTERS if name in facts and (type(facts[name]) is not int or facts[name] < 0))
    if not isinstance(facts.get("best_score", 0), int | float):
        yield "best_score"
    if not isinstance(actions, list) or not all(isinstance(action, str) for action in actions):
        yield "actions"
    if not isinstance(options, dict):
        yield "options"
        return
    types = {name: hint for group in groups for name, hint in get_type_hints(group).items()}
    for name, f in _fields_by_name(groups).items():
        if name in options:
            value, choices, kind = options[name], f.metadata["choices"], types[name]
            kind = int | float if kind is float else kind
            if not isinstance(value, kind) or (choices and value not in (*choices, None)):
                yield f"--{name} {value!r}"


def _require_same_task(groups: Groups, start: Start, given: dict[str, Any]) -> None:
    """Raise OptionError if a resumed run would get another game, other screens or actions, or another network."""
    known = _fields_by_name(groups)
    recorded = start.facts.get("options", {})
    if recorded:  # an option that is younger than the snapshot had its default
        recorded = {name: f.default for name, f in known.items()} | recorded
    fixed = [name for name, f in known.items() if f.metadata["kept"] in ("task", "network")]
    if start.checkpoint:  # because it continues with the random numbers and the optimizer of the run before
        fixed += ["library", "random_seed"]
    for name in fixed:
        before, now = recorded.get(name), given.get(name)
        same = before == now if name != "game" else same_game(recorded.get("environment", "ale"), str(before), str(now))
        if None not in (before, now) and not same:
            fits = known[name].metadata["kept"] != "network" and name != "game"  # another game may have other actions
            advice = "; --load_weights begins another training with its weights" if fits else ""
            what = "the game" if name == "game" else f"--{name}"
            raise OptionError(
                f"{what} {as_word(now)} does not go with --resume: {start.path} was trained with {as_word(before)}"
                + advice
            )


def _files_to_continue(start: Start, prefix_given: str | None) -> dict[str, Any]:
    """The options that let a resumed run continue its files. With another prefix, its CSV file has that name."""
    prefix, number = prefix_to_continue(start.path), number_of(start.path)
    if prefix.name == start.path.stem:
        raise OptionError(f"--resume {start.path}: its name does not end in an epoch, as pong_10.pkl does")
    epoch = start.facts.get("epoch", number)
    return dict(start_epoch=epoch, save_weights_prefix=str(prefix), csv_file=csv_file_of(Path(prefix_given or prefix)))


def prefix_to_continue(snapshot: Path) -> Path:
    """Return the prefix with which a training continues: in ./snapshots if the snapshot ships with the program."""
    prefix = prefix_of(snapshot)
    return Path("snapshots", prefix.name) if ships(prefix) else prefix


def csv_file_of(prefix: Path) -> str:
    """Return the statistics file of a training: results/pong.csv for snapshots/pong.

    The files of an older run lie in snapshots/pong.1, with results/pong.csv.1.
    """
    folder, numbers = prefix.parent, ""
    while older := re.fullmatch(re.escape(prefix.name) + r"(\.\d+)", folder.name):  # folders may be nested
        folder, numbers = folder.parent, older[1] + numbers
    results = folder.parent / "results" if folder.name == "snapshots" else folder
    return str(results / f"{prefix.name}.csv{numbers}")
