"""Trains, tests and plays: parses the options, settles them with those of a snapshot, and runs."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from tqdm.contrib.logging import logging_redirect_tqdm

from nvis.visualization import VisualizationOptions
from simple_dqn import options
from simple_dqn.agent import AgentOptions
from simple_dqn.deepqnetwork import BackendOptions, DeepQNetworkOptions
from simple_dqn.environment import EnvironmentOptions
from simple_dqn.errors import OptionError, SnapshotError, exit_status
from simple_dqn.games.roms import game_of, same_game
from simple_dqn.options import as_word
from simple_dqn.replay_memory import ReplayMemoryOptions
from simple_dqn.runner import FORGOTTEN, CommonOptions, Interrupted, MainOptions, Run, stop_on_interrupt
from simple_dqn.saving.checkpoint import number_of, prefix_of
from simple_dqn.saving.files import ships
from simple_dqn.saving.start import Start, start_from_weights, start_where_it_stopped
from simple_dqn.watching.recorder import RecorderOptions
from simple_dqn.watching.viewer import ViewerOptions

logger = logging.getLogger(__name__)

GROUPS = (
    EnvironmentOptions, ViewerOptions, RecorderOptions, ReplayMemoryOptions, DeepQNetworkOptions, BackendOptions,
    AgentOptions, VisualizationOptions, MainOptions, CommonOptions,
)  # fmt: skip

_KNOWN = {f.name: f for group in GROUPS for f in fields(group)}
_TYPES = {name: hint for group in GROUPS for name, hint in get_type_hints(group).items()}

USAGE = (
    "train.sh GAME [LABEL] [options] | resume.sh SNAPSHOT|NAME [options] | test.sh SNAPSHOT|GAME [options] | "
    "play.sh SNAPSHOT|GAME [options] | record.sh SNAPSHOT|GAME [options] | nvis.sh SNAPSHOT|GAME [options] | "
    "test_gym.sh SNAPSHOT|ENVIRONMENT [options]"
)
DESCRIPTION = (
    "Deep Q-learning for Atari games: train an agent from pixels, go on training it, score it, watch it play, film it, "
    "or look into it."
)
EPILOG = """\
examples:
  ./train.sh roms/breakout.bin                    train on Breakout
  ./train.sh pong fast --learning_rate 0.0005     train on Pong, results under the name pong_fast
  ./resume.sh breakout                            go on where that training stopped
  ./resume.sh snapshots/breakout_10.pkl           go on from epoch 10
  ./test.sh breakout                              score the newest snapshot of Breakout, or the one that ships
  ./test.sh snapshots/pretrained/breakout_117.pkl --play_games 30 --max_game_seconds 300
                                                  score a snapshot as the Nature paper does
  ./play.sh breakout                              watch it, and take over (the key h tells how)
  ./record.sh breakout                            film it
  ./nvis.sh breakout                              show what it looks for and at
"""

# What a snapshot was trained on, and so the default when it is tested, played or loaded.
_TRAINED_ON = (
    *(f.name for f in fields(EnvironmentOptions) if f.name != "max_game_seconds"),
    *("history_length", "batch_norm", "dueling"),
)
_STARTS = ("random_starts",)  # likewise, but a resumed training may change it
_SHAPES = ("screen_width", "screen_height", "history_length", "batch_norm", "dueling")  # weights of one fit no other
_NAMED = ("record_screen_path", "video_file", "visualization_file", "scores_path")  # may hold the snapshot's name
_COUNTERS = ("epoch", "epoch_began", "total_train_steps", "weight_updates")

_RESUMED = _KNOWN.keys() - set(FORGOTTEN)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status: 0, 2 for what the user can put right, 128 + n after signal n."""
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    words = sys.argv[1:] if argv is None else argv
    try:
        with logging_redirect_tqdm():
            return exit_status(lambda: run(words), "use a smaller --replay_size or --batch_size")
    except Interrupted as interrupted:
        return 128 + int(interrupted.args[0])


def run(argv: Sequence[str]) -> None:
    """Does what `argv` asks for.

    Raises:
        SimpleDQNError: it cannot be done.
    """
    given = options.parse(GROUPS, argv, usage=USAGE, description=DESCRIPTION, epilog=EPILOG)
    logging.getLogger().setLevel(options.build(CommonOptions, given).log_level)
    run = Run(*_settle(given))
    try:
        with stop_on_interrupt(run), contextlib.closing(run):
            run.go()
    finally:
        run.show_scores()  # once there is no other picture on the terminal


def _settle(given: dict[str, Any]) -> tuple[dict[str, Any], Start | None]:
    """The value of every option that is not at its default, and the snapshot to start from.

    What the user gives counts most, then what the snapshot says of itself.
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
    start = start_where_it_stopped(Path(path)) if resumed else start_from_weights(Path(path))
    _require_sense(start)
    recorded = start.facts.get("options", {})
    unknown = [f"--{name}" for name in recorded if name not in _KNOWN]
    if unknown:
        logger.warning("%s was made with options that are unknown here: %s", start.path, ", ".join(unknown))
    names = _RESUMED if resumed else (*_TRAINED_ON, *_STARTS)
    taken = {name: value for name, value in recorded.items() if name in names}
    if resumed:
        taken |= _names(start)
        _require_same_task(start, given)
    taken.setdefault("game", game_of(start.path.stem))
    news = {name: value for name, value in taken.items() if name not in given and value != _KNOWN[name].default}
    if news:
        logger.info("Options from %s: %s", start.path, " ".join(f"--{name} {value}" for name, value in news.items()))
    return {**taken, **given, **_named_after(start.path, given)}, start


def _named_after(snapshot: Path, given: dict[str, Any]) -> dict[str, Any]:
    """The options in `_NAMED`, with {snapshot} replaced by pong_10, for example, and {name} by pong."""
    words = {"{snapshot}": snapshot.stem, "{name}": prefix_of(snapshot).name}
    named = {name: str(given[name]) for name in _NAMED if name in given}
    for word, text in words.items():
        named = {name: value.replace(word, text) for name, value in named.items()}
    return named


def _require_sense(start: Start) -> None:
    """Raises SnapshotError if what the snapshot says of itself cannot be: it may come from anywhere."""
    facts, said = start.facts, dict[str, Any]()
    wrong = [
        name for name, kind in (("options", dict), ("actions", list)) if not isinstance(facts.get(name, kind()), kind)
    ]
    wrong += [name for name in _COUNTERS if name in facts and (type(facts[name]) is not int or facts[name] < 0)]
    if not wrong:
        wrong += ["actions" for action in facts.get("actions", []) if not isinstance(action, str)]
        said = {name: value for name, value in facts.get("options", {}).items() if name in _KNOWN}
    for name, value in said.items():
        kind, choices = _TYPES[name], _KNOWN[name].metadata["choices"]
        if not isinstance(value, int | float if kind is float else kind) or (choices and value not in (*choices, None)):
            wrong.append(f"--{name} {value!r}")
    if wrong:
        raise SnapshotError(f"{start.path} is damaged: what it says of {wrong[0]} makes no sense")


def _require_same_task(start: Start, given: dict[str, Any]) -> None:
    """Raises OptionError if training would go on with another game, other screens or actions, or what cannot do it."""
    recorded = {name: _KNOWN[name].default for name in ("library", "dueling")} | start.facts.get("options", {})
    of_checkpoint = ("library", "random_seed") if start.checkpoint else ()  # it goes on with what was drawn so far
    for name in (*_TRAINED_ON, *of_checkpoint):
        before, now = recorded.get(name), given.get(name)
        same = before == now if name != "game" else same_game(recorded.get("environment", "ale"), str(before), str(now))
        if None not in (before, now) and not same:
            advice = "; --load_weights begins another training with its weights" if name not in _SHAPES else ""
            raise OptionError(
                f"--{name} {as_word(now)} does not go with --resume: {start.path} was trained with {as_word(before)}"
                + advice
            )


def _names(start: Start) -> dict[str, Any]:
    """Where a resumed run goes on counting and writing: snapshots/pong_10.pkl goes with results/pong.csv.

    A run that was set aside in snapshots/pong.1 goes with results/pong.csv.1. A run from a snapshot that ships writes
    to ./snapshots.
    """
    prefix, number = prefix_of(start.path), number_of(start.path)
    if prefix.name == start.path.stem:
        raise OptionError(f"--resume {start.path}: its name does not end in an epoch, as pong_10.pkl does")
    if ships(prefix):
        prefix = Path("snapshots", prefix.name)
    folder, numbers = prefix.parent, ""
    while aside := re.fullmatch(re.escape(prefix.name) + r"(\.\d+)", folder.name):  # epochs of it may be aside, too
        folder, numbers = folder.parent, aside[1] + numbers
    results = folder.parent / "results" if folder.name == "snapshots" else folder
    return dict(
        start_epoch=start.facts.get("epoch", number),
        save_weights_prefix=str(prefix),
        csv_file=str(results / f"{prefix.name}.csv{numbers}"),
    )
