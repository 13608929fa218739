"""The command line of the main program: its help, the options of the main loop, and checks across options."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simple_dqn.agent import AgentOptions
from simple_dqn.deepqnetwork import DeepQNetworkOptions
from simple_dqn.errors import OptionError
from simple_dqn.options import Options, build, option
from simple_dqn.replay_memory import ReplayMemoryOptions
from simple_dqn.reports.tensorboard import require_tensorboard
from simple_dqn.saving.files import require_writable
from simple_dqn.saving.start import Start
from simple_dqn.wording import count

logger = logging.getLogger(__name__)

USAGE = (
    "train.sh GAME [LABEL] [options] | resume.sh SNAPSHOT|NAME [options] | test.sh SNAPSHOT|GAME [options] | "
    "play.sh SNAPSHOT|GAME [options] | record.sh SNAPSHOT|GAME [options] | nvis.sh SNAPSHOT|GAME [options] | "
    "test_gym.sh SNAPSHOT|ENVIRONMENT [options]"
)
DESCRIPTION = (
    "Deep Q-learning for Atari games: train an agent from pixels, continue its training, score it, watch it, film it, "
    "or see what it looks at."
)
EPILOG = """\
examples:
  ./train.sh roms/breakout.bin                    train on Breakout
  ./train.sh pong slow --learning_rate 0.0001     train on Pong, with the label slow: results/pong_slow.csv
  ./resume.sh breakout                            continue where that training stopped
  ./resume.sh snapshots/breakout_10.pkl           continue from epoch 10
  ./test.sh breakout                              score the newest snapshot of Breakout, or the one that ships
  ./test.sh snapshots/pretrained/breakout_32.pkl --play_games 30 --max_game_seconds 300
                                                  score a snapshot as the Nature paper does
  ./play.sh breakout                              watch it, and take over (press h for the keys)
  ./record.sh breakout                            film it
  ./nvis.sh breakout                              show what its filters respond to and what it looks at
"""
_STEPS: dict[str, Any] = dict(at_least=0, at_most=10**12)
_MOST_LAMBDA_RETURNS = 100  # per step
_SUFFIXES = {"csv_file": "csv", "visualization_file": "html", "record_sound_filename": "wav", "video_file": "mov"}


@dataclass(frozen=True)
class MainOptions(Options):
    title = "Main loop"
    random_steps: int = option(50_000, "random steps that fill the replay memory before learning starts", **_STEPS)
    train_steps: int = option(250_000, "training steps per epoch", **_STEPS)
    test_steps: int = option(125_000, "test steps after each epoch", **_STEPS)
    test_games: int = option(0, "test for N whole games, not for --test_steps; 0: use --test_steps", **_STEPS)
    epochs: int = option(200, "number of the last epoch", **_STEPS)
    start_epoch: int = option(
        0, "epochs already run: sets the exploration rate and the snapshots' numbers", kept="never", **_STEPS
    )
    play_games: int = option(0, "play N games; do not train or test", kept="never", **_STEPS)
    load_weights: str | None = option(None, "snapshot to start from; a game's name means its newest one", kept="never")
    save_weights_prefix: str | None = option(None, "snapshots are saved as PREFIX_EPOCH.pkl", kept="never")
    csv_file: str | None = option(None, "file for the statistics of every phase", kept="never")
    tensorboard: bool = option(False, "also write the statistics for TensorBoard, to a folder beside --csv_file")
    scores_path: str | None = option(
        None, "folder for scores.csv and scores.json of the games of --play_games", kept="never"
    )
    resume: str | None = option(
        None, "snapshot to continue from; a prefix such as snapshots/pong means its newest one", kept="never"
    )
    checkpoint: bool = option(True, "beside each snapshot, save what an exact resume needs")

    @property
    def trains(self) -> bool:
        """Whether the run learns and saves snapshots."""
        return self.train_steps > 0 and not self.play_games


@dataclass(frozen=True)
class CommonOptions(Options):
    title = "Common"
    random_seed: int | None = option(
        None, "seed for repeatable runs", at_least=0, at_most=2**31 - 1, default_text="a new one each time"
    )
    log_level: str = option(
        "INFO", "lowest level of messages in the log", choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
        kept="never",
    )  # fmt: skip

    def seed(self) -> int:
        """Return the seed of the run. Without --random_seed it is random."""
        if self.random_seed is not None:
            return self.random_seed
        seed = secrets.randbelow(2**31)
        logger.info("Random seed: %d", seed)
        return seed


def require_sense(o: MainOptions, values: Mapping[str, Any], start: Start | None) -> None:
    """Check what involves several options: contradictions, and files that would replace each other.

    Raises:
        OptionError: two options contradict each other, or a file is a folder or another file of the run.
        OutputError: a file cannot be written.
    """
    _require_different_files(values, start)
    tests = o.test_games or o.test_steps
    test_is_next = tests and start and start.checkpoint and start.checkpoint.due[0] == "test"
    if o.resume and o.start_epoch >= o.epochs and not test_is_next:
        raise OptionError(
            f"--resume {o.resume}: epoch {o.start_epoch} was the last of {o.epochs}. Use a larger --epochs to continue"
        )
    if o.start_epoch >= max(1, o.epochs) and not (o.resume or o.play_games):
        raise OptionError(f"--start_epoch {o.start_epoch}: must be less than --epochs {o.epochs}")
    page = values.get("visualization_file")
    if o.scores_path and not o.play_games:
        raise OptionError(f"--scores_path {o.scores_path} is for the scores of games played: add --play_games 1")
    if page and not o.play_games:
        raise OptionError(f"--visualization_file {page} shows what was seen in games played: add --play_games 1")
    if not (o.play_games or o.random_steps or (o.epochs and (o.train_steps or o.test_steps or o.test_games))):
        raise OptionError(
            "nothing to do: give --random_steps, --play_games, or --epochs with --train_steps, --test_steps or "
            "--test_games, above 0"
        )
    memory, agent = build(ReplayMemoryOptions, values), build(AgentOptions, values)
    if o.trains and build(DeepQNetworkOptions, values).double_dqn and not agent.target_steps:
        raise OptionError("--double_dqn evaluates actions with a target network: it needs a --target_steps above 0")
    if o.trains and memory.return_lambda and memory.replay_size > _MOST_LAMBDA_RETURNS * agent.train_frequency:
        raise OptionError(
            f"--return_lambda is too slow: it evaluates all {memory.replay_size} transitions of --replay_size every "
            f"{count(agent.train_frequency, 'step')}. Use a smaller --replay_size and a larger --train_frequency, as "
            "@presets/online does."
        )
    snapshot = o.save_weights_prefix and f"{o.save_weights_prefix}_1.pkl"
    scores = o.scores_path and f"{o.scores_path}/scores.csv"
    for path in filter(None, (o.csv_file, snapshot, page, scores)):
        require_writable(Path(path))
    if o.tensorboard:
        require_tensorboard(o.csv_file)


def _require_different_files(values: Mapping[str, Any], start: Start | None) -> None:
    for name, suffix in _SUFFIXES.items():
        if values.get(name) and _names_folder(values[name]):
            example = Path(values[name]) / f"pong.{suffix}"
            raise OptionError(f"--{name} {values[name]} is a folder: name a file in it, as in {example}")
    prefix = values.get("save_weights_prefix") or "snapshots/pong"
    if _names_folder(prefix, existing=False) or prefix.endswith((".pkl", ".prm", ".checkpoint")):
        what = "is a folder" if _names_folder(prefix, existing=False) else "is a snapshot's name"
        raise OptionError(
            f"--save_weights_prefix {prefix} {what}: give what the snapshots' names begin with, as in snapshots/pong"
        )
    inputs = [Path(values[name]) for name in ("game", "resume") if values.get(name)] + ([start.path] if start else [])
    taken = {path.resolve(): str(path) for path in inputs if path.is_file()}
    for name in _SUFFIXES:
        if values.get(name):
            path = Path(values[name]).resolve()
            if path in taken:
                raise OptionError(f"--{name} {values[name]} would replace {taken[path]}: name another file")
            taken[path] = f"the file of --{name}"


def _names_folder(path: str, existing: bool = True) -> bool:
    return os.path.basename(path) in ("", ".", "..") or (existing and os.path.isdir(path))
