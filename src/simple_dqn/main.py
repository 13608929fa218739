"""Trains, tests and plays: parses the options, builds the parts, runs the phases."""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, get_type_hints

import numpy as np
from tqdm.contrib.logging import logging_redirect_tqdm

from nvis.visualization import Visualization, VisualizationOptions
from simple_dqn import options
from simple_dqn.agent import Agent, AgentOptions
from simple_dqn.audience import Audience
from simple_dqn.deepqnetwork import BackendOptions, DeepQNetwork, DeepQNetworkOptions, find_device
from simple_dqn.environment import EnvironmentOptions, game_of
from simple_dqn.errors import OptionError, SimpleDQNError, SnapshotError
from simple_dqn.files import reason, require_writable
from simple_dqn.games import make_games, num_cores
from simple_dqn.options import Options, option
from simple_dqn.progress import Progress
from simple_dqn.recorder import RecorderOptions, make_recorders
from simple_dqn.replay_memory import ReplayMemory, ReplayMemoryOptions
from simple_dqn.scores import Scores, table, write_scores
from simple_dqn.snapshot import Snapshot, read_snapshot, write_snapshot
from simple_dqn.statistics import CSVFile, Statistics
from simple_dqn.viewer import StrongestFilter, Viewer, ViewerOptions, make_display

logger = logging.getLogger(__name__)

_STEPS: dict[str, Any] = dict(at_least=0, at_most=10**12)


@dataclass(frozen=True)
class MainOptions(Options):
    title = "Main loop"
    random_steps: int = option(50_000, "random moves that fill the replay memory before learning starts", **_STEPS)
    train_steps: int = option(250_000, "training steps per epoch", **_STEPS)
    test_steps: int = option(125_000, "test steps after each epoch", **_STEPS)
    epochs: int = option(200, "epochs to run", **_STEPS)
    start_epoch: int = option(0, "epochs already run: sets the exploration rate and the snapshots' numbers", **_STEPS)
    play_games: int = option(0, "play so many games, and neither train nor test", **_STEPS)
    load_weights: str | None = option(None, "snapshot to begin with")
    save_weights_prefix: str | None = option(None, "snapshots are saved as PREFIX_EPOCH.pkl")
    csv_file: str | None = option(None, "file for the statistics of every phase")
    scores_path: str | None = option(None, "folder for scores.csv and scores.json of the games of --play_games")
    resume: str | None = option(None, "snapshot from which to go on training, with its options where none are given")


@dataclass(frozen=True)
class CommonOptions(Options):
    title = "Common"
    random_seed: int | None = option(
        None, "seed for repeatable runs", at_least=0, at_most=2**31 - 1, default_text="another one each time"
    )
    log_level: str = option(
        "INFO", "what is worth a line in the log", choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
    )


GROUPS = (
    EnvironmentOptions, ViewerOptions, RecorderOptions, ReplayMemoryOptions, DeepQNetworkOptions, BackendOptions,
    AgentOptions, VisualizationOptions, MainOptions, CommonOptions,
)  # fmt: skip

_KNOWN = {f.name: f for group in GROUPS for f in fields(group)}
_TYPES = {name: hint for group in GROUPS for name, hint in get_type_hints(group).items()}

USAGE = (
    "train.sh GAME [LABEL] [options] | resume.sh SNAPSHOT [options] | test.sh SNAPSHOT [options] | "
    "play.sh SNAPSHOT [options] | record.sh SNAPSHOT [options] | nvis.sh SNAPSHOT [options] | "
    "test_gym.sh SNAPSHOT [options]"
)
DESCRIPTION = (
    "Deep Q-learning for Atari games: train an agent from pixels, go on training it, score it, watch it play, film it, "
    "or look into it."
)
EPILOG = """\
examples:
  ./train.sh roms/breakout.bin                    train on Breakout
  ./train.sh pong fast --learning_rate 0.0005     train on Pong, results under the name pong_fast
  ./resume.sh snapshots/breakout_10.pkl           go on from epoch 10
  ./test.sh snapshots/breakout_77.pkl             score a snapshot
  ./test.sh snapshots/breakout_77.pkl --play_games 30 --max_game_seconds 300
                                                  score it as the Nature paper does
  ./play.sh snapshots/breakout_77.pkl             watch it, and take over (the key h tells how)
  ./record.sh snapshots/breakout_77.pkl           film it
  ./nvis.sh snapshots/breakout_77.pkl             show what its filters look for
"""

# What a snapshot was trained on, and so the default when it is tested, played or loaded.
_TRAINED_ON = (
    "game", "environment", "frame_skip", "repeat_action_probability", "minimal_action_set", "color_averaging",
    "screen_width", "screen_height", "history_length", "batch_norm",
)  # fmt: skip
_SCORES = ("test_score", "test_games")
_COUNTERS = ("epoch", "epoch_began", "total_train_steps", "weight_updates")
# What no snapshot remembers: where files lie and what a run shows. Equal runs make equal snapshots, wherever they run.
_FORGOTTEN = (
    "backend", "csv_file", "device_id", "display_screen", "load_weights", "log_level", "play_games",
    "record_games", "record_screen_path", "record_sound_filename", "resume", "save_weights_prefix", "scores_path",
    "start_epoch", "video_file", "visualization_file", "visualization_filters",
)  # fmt: skip


_RESUMED = _KNOWN.keys() - set(_FORGOTTEN)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status: 0, 2 for what the user can put right, 130 after Ctrl-C."""
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    try:
        with logging_redirect_tqdm():
            run(sys.argv[1:] if argv is None else argv)
        return 0
    except SimpleDQNError as error:
        _print_error(str(error))
    except OSError as error:
        _print_error(f"{error.filename or 'the system'}: {reason(error)}")
    except MemoryError:
        _print_error("there is not enough memory: use a smaller --replay_size or --batch_size")
    except (KeyboardInterrupt, _Interrupted):
        return 130
    return 2


def _print_error(text: str) -> None:
    print("error:", text.replace("\n", " "), file=sys.stderr)  # one line, whatever is in a file's name


def run(argv: Sequence[str]) -> None:
    """Does what `argv` asks for.

    Raises:
        SimpleDQNError: it cannot be done.
    """
    given = options.parse(GROUPS, argv, usage=USAGE, description=DESCRIPTION, epilog=EPILOG)
    logging.getLogger().setLevel(options.build(CommonOptions, given).log_level)
    run = Run(*_settle(given))
    try:
        with _stop_on_interrupt(run.agent), contextlib.closing(run):
            run.go()
    finally:
        run.show_scores()  # once there is no other picture on the terminal


class Start(NamedTuple):
    """The snapshot that a run starts from."""

    path: Path
    snapshot: Snapshot

    @property
    def facts(self) -> dict[str, Any]:
        return self.snapshot.facts


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
    start = Start(Path(path), read_snapshot(Path(path)))
    _require_sense(start)
    recorded = start.facts.get("options", {})
    taken = {name: value for name, value in recorded.items() if name in _TRAINED_ON or (resumed and name in _RESUMED)}
    if resumed:
        taken |= _names(start)
    taken.setdefault("game", game_of(start.path.stem))
    news = {name: value for name, value in taken.items() if name not in given and value != _KNOWN[name].default}
    if news:
        logger.info("Options from %s: %s", start.path, " ".join(f"--{name} {value}" for name, value in news.items()))
    return {**taken, **given}, start


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


def _names(start: Start) -> dict[str, Any]:
    """Where a resumed run goes on counting and writing: snapshots/pong_10.pkl goes with results/pong.csv."""
    name = re.fullmatch(r"(.+)_(\d+)", start.path.stem)
    if not name:
        raise OptionError(f"--resume {start.path}: its name does not end in an epoch, as pong_10.pkl does")
    folder = start.path.parent
    results = folder.parent / "results" if folder.name == "snapshots" else folder
    return dict(
        start_epoch=start.facts.get("epoch", int(name[2])),
        random_steps=0,
        save_weights_prefix=str(folder / name[1]),
        csv_file=str(results / f"{name[1]}.csv"),
    )


class Run:
    """The parts of a run, put together, and its phases.

    Args:
        values: the options, by name; what is missing is at its default.
        start: the snapshot to start from.
    """

    def __init__(self, values: dict[str, Any], start: Start | None) -> None:
        self.options = o = options.build(MainOptions, values)
        env_options, agent_options = options.build(EnvironmentOptions, values), options.build(AgentOptions, values)
        memory_options, net_options = (
            options.build(ReplayMemoryOptions, values),
            options.build(DeepQNetworkOptions, values),
        )
        backend_options = options.build(BackendOptions, values)
        if o.resume and o.start_epoch >= o.epochs:
            raise OptionError(
                f"--resume {o.resume}: epoch {o.start_epoch} was the last of {o.epochs}; --epochs N goes on"
            )
        vis_options = options.build(VisualizationOptions, values)
        page = vis_options.visualization_file
        if o.scores_path and not o.play_games:
            raise OptionError(f"--scores_path {o.scores_path} is for the scores of games played: add --play_games 1")
        if page and not o.play_games:
            raise OptionError(f"--visualization_file {page} shows what was seen in games played: add --play_games 1")
        seed = _seed(options.build(CommonOptions, values))
        groups = (env_options, memory_options, net_options, backend_options, agent_options, o)
        recorded = {name: value for group in groups for name, value in asdict(group).items() if name not in _FORGOTTEN}
        self._facts: dict[str, Any] = {"options": recorded | {"random_seed": seed}}
        logger.debug("Options: %s", self._facts["options"])
        self._epoch = o.start_epoch  # epochs that are over
        self._saved: list[Path] = []
        self._saved_steps = -1  # training steps in the last of them
        scores_file = o.scores_path and f"{o.scores_path}/scores.csv"
        prefix = o.save_weights_prefix
        for path in filter(None, (o.csv_file, prefix and f"{prefix}_1.pkl", page, scores_file)):
            require_writable(Path(path))
        display = make_display(options.build(ViewerOptions, values))
        self._viewer = Viewer(display) if display else None
        watchers = make_recorders(options.build(RecorderOptions, values)) + ([self._viewer] if self._viewer else [])
        self._watchers = [Audience(watchers, o.play_games)] if watchers else []

        # Every owner of randomness has its own; a resumed run must not repeat the first one's draws.
        game, memory, agent = np.random.SeedSequence(seed, spawn_key=(o.start_epoch,)).spawn(3)
        screen_shape = (env_options.screen_height, env_options.screen_width)
        state_shape = (memory_options.history_length, *screen_shape)
        n = 1 if o.play_games else agent_options.num_envs
        on_gpu = find_device(backend_options).type == "cuda"
        starts = agent_options.random_starts
        self.games = make_games(env_options, state_shape, starts, game, n, on_gpu, self._watchers)
        rounds = (
            0 if o.play_games else -(-o.random_steps // n) + max(0, o.epochs - o.start_epoch) * -(-o.train_steps // n)
        )
        rng = np.random.default_rng(memory)
        self.memory = ReplayMemory(
            memory_options, screen_shape, net_options.batch_size, rng, at_most=rounds * n, lanes=n
        )
        use_target = agent_options.target_steps > 0
        threads = num_cores() - self.games.cores_taken if self.games.cores_taken else None
        self.network = DeepQNetwork(
            self.games.num_actions, state_shape, net_options, backend_options, seed, use_target, threads
        )
        self.network.hold_screens(self.memory)
        self.agent = Agent(self.games, self.memory, self.network, agent_options, np.random.default_rng(agent))
        self.agent.total_train_steps = self._epoch_began = o.start_epoch * o.train_steps
        if start:
            self._take_over(start)
        self._facts |= {"game": env_options.game, "actions": self.games.action_names}
        keep = self.agent.total_train_steps if o.resume or o.start_epoch else None
        if o.resume and o.csv_file and not Path(o.csv_file).exists():
            logger.warning("There are no statistics in %s: a new file begins; --csv_file names another", o.csv_file)
        self._csv = CSVFile(Path(o.csv_file), keep) if o.csv_file else None
        self.statistics = Statistics(self.agent, self._csv)
        self._scores = Scores()
        self.agent.callbacks = [self.statistics, Progress(self.statistics, o.epochs), self._scores]
        if self._viewer:
            explain = StrongestFilter(self.network.layers, lambda: self.network.train_iterations)
            self._viewer.attach(self.agent, explain)
            self.agent.callbacks.append(self._viewer)
        if page:
            origin = str(start.path) if start else "none, the weights are random"
            game_name = Path(env_options.game).stem
            layers = self.network.layers()
            self.agent.callbacks.append(Visualization(self.agent, layers, vis_options, game_name, origin))

    def go(self) -> None:
        """Plays, or trains and tests; what is recorded is complete if that comes to its end, or a viewer ends it."""
        try:
            if self.options.play_games:
                self.play()
            else:
                self.train()
        except _Interrupted:
            if not (self._viewer and self._viewer.quit):
                raise
        for watcher in self._watchers:
            watcher.finish()

    def close(self) -> None:
        """Frees what the run holds."""
        for watcher in self._watchers:
            watcher.close()
        self.games.close()

    def show_scores(self) -> None:
        """Prints what the games played came to, if there are any."""
        if not self.options.play_games:
            return
        if self._scores.games:
            print(table(self._scores.games), flush=True)
        if self.options.scores_path:
            write_scores(Path(self.options.scores_path), self._scores.games)

    def train(self) -> None:
        """Random moves, then epochs of training and testing."""
        o, agent = self.options, self.agent
        try:
            self._phase("random", 0, o.random_steps, agent.random)
            for epoch in range(o.start_epoch + 1, o.epochs + 1):
                already = agent.total_train_steps - self._epoch_began  # where it was broken off
                self._phase("train", epoch, o.train_steps - already, agent.train)
                self._epoch, self._epoch_began = epoch, agent.total_train_steps
                for name in _SCORES:  # they were another epoch's
                    self._facts.pop(name, None)
                self._save(epoch)
                self._phase("test", epoch, o.test_steps, agent.test)
                if o.test_steps:
                    score = self.statistics.mean_reward
                    self._facts |= {"test_score": score, "test_games": self.statistics.num_games}
                    self._save(epoch)
        except _Interrupted:
            self._save_moment()
            raise
        except Exception:  # a full disk, say: what was learned since the last snapshot may still find room
            with contextlib.suppress(SimpleDQNError):
                self._save_moment()
            raise
        finally:
            self._sum_up()

    def play(self) -> None:
        """Plays games."""
        try:
            self._phase("play", 0, self.options.play_games, self.agent.play)
        finally:
            self._sum_up()

    def _phase(self, name: str, epoch: int, number: int, play: Callable[[int], None]) -> None:
        """Runs a phase of so many steps, or games, and tells the callbacks of it."""
        if number <= 0:
            return
        if self.agent.interrupted:  # while a snapshot was being saved
            raise _Interrupted
        logger.info("%s%s", name.capitalize(), f" {epoch}/{self.options.epochs}" if epoch else "")
        for callback in self.agent.callbacks:
            callback.on_phase_start(name, epoch, None if name == "play" else number)
        play(number)
        for callback in self.agent.callbacks:
            callback.on_phase_end()
        if self.agent.interrupted:
            raise _Interrupted

    def _save(self, number: int) -> None:
        """Saves PREFIX_number.pkl, if there is a prefix and this run trains."""
        if not self.options.save_weights_prefix or not self.options.train_steps:
            return
        path = Path(f"{self.options.save_weights_prefix}_{number}.pkl")
        facts = self._facts | {
            "epoch": self._epoch,
            "epoch_began": self._epoch_began,
            "total_train_steps": self.agent.total_train_steps,
            "weight_updates": self.network.train_iterations,
        }
        write_snapshot(path, Snapshot(self.network.layers(), self.network.state_shape, facts))
        self._saved += [path] if path not in self._saved else []
        self._saved_steps = self.agent.total_train_steps
        logger.info("Saved %s", path)

    def _save_moment(self) -> None:
        """Saves what was learned since the last snapshot, as that of the epoch under way."""
        if self.agent.total_train_steps != self._saved_steps:
            broken_off = self.agent.total_train_steps > self._epoch_began
            self._save(self._epoch + broken_off)

    def _take_over(self, start: Start) -> None:
        """Goes on from a snapshot: its weights and, where training is resumed, its counters."""
        logger.info("Loading weights from %s", start.path)
        trained_on = start.facts.get("actions", self.games.action_names)
        try:
            self.network.load_layers(start.snapshot.layers, str(start.path))
        except SnapshotError as error:
            game = start.facts.get("game")
            raise SnapshotError(f"{error}" + (f" (it was trained on {game})" if game else "")) from None
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise SnapshotError(f"{start.path} is damaged: its layers make no sense ({error!r})") from error
        if trained_on != self.games.action_names:
            ours = " ".join(self.games.action_names)
            logger.warning("The actions of %s are %s, here %s", start.path, " ".join(trained_on), ours)
        self._facts |= {name: start.facts[name] for name in _SCORES if name in start.facts}
        if self.options.resume:
            self.agent.total_train_steps = start.facts.get("total_train_steps", self.agent.total_train_steps)
            self._epoch_began = start.facts.get("epoch_began", self.agent.total_train_steps)
            self.network.train_iterations = start.facts.get("weight_updates", 0)
            logger.info("Going on from epoch %d; the replay memory starts empty", self._epoch)

    def _sum_up(self) -> None:
        """Says what was written where."""
        if self._saved:
            more = f" … {self._saved[-1].name} ({len(self._saved)} snapshots)" if len(self._saved) > 1 else ""
            logger.info("Snapshots are in %s%s", self._saved[0], more)
        if self._csv:
            logger.info("Statistics are in %s (%d new rows)", self._csv.path, self._csv.rows)


class _Interrupted(Exception):
    """Ctrl-C was pressed, and the phase under way has been brought to an end."""


@contextlib.contextmanager
def _stop_on_interrupt(agent: Agent) -> Iterator[None]:
    """The first Ctrl-C lets the agent finish its step and the run save what it has; a second one ends it at once."""

    def stop(signum: int, frame: FrameType | None) -> None:
        agent.interrupted = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        logger.info("Interrupted: saving what there is (Ctrl-C again ends at once)")

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _seed(common: CommonOptions) -> int:
    if common.random_seed is not None:
        return common.random_seed
    seed = secrets.randbelow(2**31)
    logger.info("Random seed: %d", seed)
    return seed
