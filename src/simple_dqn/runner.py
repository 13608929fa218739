"""A run: the parts of a training, a test or games to watch, put together; its phases, and what it saves."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from nvis.visualization import Visualization, VisualizationOptions
from simple_dqn import options
from simple_dqn.agent import Agent, AgentOptions, require_seldom_refreshes
from simple_dqn.deepqnetwork import BackendOptions, DeepQNetwork, DeepQNetworkOptions, find_device
from simple_dqn.environment import EnvironmentOptions
from simple_dqn.errors import CheckpointError, OptionError, SimpleDQNError, SnapshotError
from simple_dqn.games.games import ENDING_SIGNALS, leave_cores_to_games, make_games
from simple_dqn.games.roms import same_game
from simple_dqn.learning.neon_network import NeonNetwork, find_backend
from simple_dqn.options import Options, option
from simple_dqn.replay_memory import ReplayMemoryOptions, memory_class
from simple_dqn.reports.progress import Progress
from simple_dqn.reports.scores import Scores, table, write_scores
from simple_dqn.saving.checkpoint import Checkpoint, Checkpoints, Chunk, number_of, prefix_of, restore_memory, set_aside
from simple_dqn.saving.files import Lock, free_number, require_writable, ships
from simple_dqn.saving.snapshot import Snapshot, write_snapshot
from simple_dqn.saving.start import Start
from simple_dqn.statistics import CSVFile, Statistics
from simple_dqn.watching.audience import Audience
from simple_dqn.watching.recorder import RecorderOptions, make_recorders
from simple_dqn.watching.viewer import Saliency, Viewer, ViewerOptions, make_display

logger = logging.getLogger(__name__)

_STEPS: dict[str, Any] = dict(at_least=0, at_most=10**12)


@dataclass(frozen=True)
class MainOptions(Options):
    title = "Main loop"
    random_steps: int = option(50_000, "random moves that fill the replay memory before learning starts", **_STEPS)
    train_steps: int = option(250_000, "training steps per epoch", **_STEPS)
    test_steps: int = option(125_000, "test steps after each epoch", **_STEPS)
    test_games: int = option(0, "whole games per test, instead of --test_steps; 0: --test_steps", **_STEPS)
    epochs: int = option(200, "epochs to run", **_STEPS)
    start_epoch: int = option(0, "epochs already run: sets the exploration rate and the snapshots' numbers", **_STEPS)
    play_games: int = option(0, "play so many games, and neither train nor test", **_STEPS)
    load_weights: str | None = option(None, "snapshot to begin with, or a game's name for its newest one")
    save_weights_prefix: str | None = option(None, "snapshots are saved as PREFIX_EPOCH.pkl")
    csv_file: str | None = option(None, "file for the statistics of every phase")
    scores_path: str | None = option(None, "folder for scores.csv and scores.json of the games of --play_games")
    resume: str | None = option(
        None, "snapshot from which to go on training, or what the names of all begin with: the last one"
    )
    checkpoint: bool = option(True, "beside each snapshot save all that is needed to go on exactly")


@dataclass(frozen=True)
class CommonOptions(Options):
    title = "Common"
    random_seed: int | None = option(
        None, "seed for repeatable runs", at_least=0, at_most=2**31 - 1, default_text="another one each time"
    )
    log_level: str = option(
        "INFO", "what is worth a line in the log", choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
    )


_PONG_OF_2015 = ("NOOP", "RIGHT", "LEFT")  # the minimal action set of ALE 0.5; today's has FIRE and both with it, too
_FILES = {"csv_file": "csv", "visualization_file": "html", "record_sound_filename": "wav", "video_file": "mov"}
_SCORES = ("test_score", "test_games")
# What no snapshot remembers: where files lie and what a run shows. Equal runs make equal snapshots, wherever they run.
FORGOTTEN = (
    "backend", "csv_file", "device_id", "display_screen", "load_weights", "log_level", "play_games",
    "record_games", "record_screen_path", "record_sound_filename", "resume", "save_weights_prefix", "scores_path",
    "start_epoch", "video_file", "visualization_file", "visualization_filters",
)  # fmt: skip


class Run:
    """The parts of a run, put together, and its phases.

    Args:
        values: the options, by name; what is missing is at its default.
        start: the snapshot to start from.
    """

    def __init__(self, values: dict[str, Any], start: Start | None) -> None:
        self.options = o = options.build(MainOptions, values)
        page = options.build(VisualizationOptions, values)
        _require_places_of_their_own(values, start)
        _require_sense(o, page, start)
        seed = _seed(options.build(CommonOptions, values))
        self._epoch = o.start_epoch  # epochs that are over
        self._stage: tuple[str, int] = ("random", 0)  # the phase under way, or the next one, and its epoch
        self._then = ("train", o.start_epoch + 1)  # what comes after the random moves
        self._under_way = False  # whether it has begun
        self._going_on: dict[str, Any] | None = None  # the statistics of a phase that was broken off, to go on with
        self._chunks: list[Chunk] = []
        self._saved: list[Path] = []
        self._saved_transitions = 0  # that had entered the memory when the last of them was saved
        self._prefix = o.save_weights_prefix if o.train_steps and not o.play_games else None
        display = make_display(options.build(ViewerOptions, values))
        self.viewer = Viewer(display) if display else None
        watchers = make_recorders(options.build(RecorderOptions, values)) + ([self.viewer] if self.viewer else [])
        self._watchers = [Audience(watchers, o.play_games)] if watchers else []
        self._make_parts(values, seed, start)
        if start:
            self._start_from(start)
        self._lock = Lock(self._prefix) if self._prefix else None
        try:
            number = free_number(self._prefix, o.csv_file)
            self._csv = CSVFile(Path(o.csv_file), **self._rows_to_keep(start), number=number) if o.csv_file else None
            if self._prefix:
                self._set_aside(Path(self._prefix), number, start)
            self._checkpoints = Checkpoints(self._prefix, self._chunks) if self._prefix and o.checkpoint else None
            self._add_callbacks(page, start)
        except BaseException:
            self.close()
            raise

    def _make_parts(self, values: dict[str, Any], seed: int, start: Start | None) -> None:
        """The games, the replay memory, the network and the agent, and what snapshots say of them."""
        o = self.options
        env_options, agent_options = options.build(EnvironmentOptions, values), options.build(AgentOptions, values)
        memory_options = options.build(ReplayMemoryOptions, values)
        net_options, backend = options.build(DeepQNetworkOptions, values), options.build(BackendOptions, values)
        groups = (env_options, memory_options, net_options, backend, agent_options, o)
        recorded = {name: value for group in groups for name, value in asdict(group).items() if name not in FORGOTTEN}
        self._facts: dict[str, Any] = {"options": recorded | {"random_seed": seed}}
        logger.debug("Options: %s", self._facts["options"])
        # Every owner of randomness has its own; a resumed run must not repeat the first one's draws.
        added = start.checkpoint.state["memory"]["added"] if start and start.checkpoint else []
        game, memory, agent = np.random.SeedSequence(seed, spawn_key=(o.start_epoch, *added)).spawn(3)
        screen_shape = (env_options.screen_height, env_options.screen_width)
        state_shape = (memory_options.history_length, *screen_shape)
        n, trains = agent_options.num_envs, o.train_steps and not o.play_games
        if o.play_games:  # watchers see one game after another
            n = 1 if self._watchers or values.get("visualization_file") else min(n, o.play_games)
        actions = _actions(start, env_options) if start else None
        if trains:
            require_seldom_refreshes(memory_options, agent_options)
        in_turn = agent_options.learns_in_bursts or not trains
        if in_turn and n > 1 and not self._watchers:
            leave_cores_to_games()
        network_class, on_gpu = library_of(backend)
        self.games = make_games(
            env_options, state_shape, agent_options.random_starts, game, n, on_gpu, in_turn, self._watchers, actions
        )
        if agent_options.random_starts and "NOOP" not in self.games.action_names:
            logger.info(
                "No action of %s is called NOOP: --random_starts %d has no effect",
                env_options.game, agent_options.random_starts,
            )  # fmt: skip
        self.memory = memory_class(memory_options)(
            memory_options,
            screen_shape,
            net_options.batch_size,
            np.random.default_rng(memory),
            at_most=0 if o.play_games else self._transitions_to_hold(n, start),
            lanes=n,
        )
        use_target = agent_options.target_steps > 0
        self.network = network_class(
            self.games.num_actions, state_shape, net_options, backend, seed, use_target, self.games.cores_left
        )
        self.network.hold_screens(self.memory)
        self.agent = Agent(self.games, self.memory, self.network, agent_options, np.random.default_rng(agent))
        self.agent.total_train_steps = self._epoch_began = o.start_epoch * o.train_steps
        self._facts |= {"game": env_options.game, "actions": self.games.action_names}

    def _start_from(self, start: Start) -> None:
        """Brings the parts to where they were."""
        o = self.options
        if start.snapshot:
            self._take_over(start, start.snapshot)
        if o.resume and o.csv_file and not Path(o.csv_file).exists():
            logger.warning("There are no statistics in %s: a new file begins; --csv_file names another", o.csv_file)
        if start.checkpoint:
            self._go_on(start.checkpoint)
        if o.resume and not self.memory.count:
            self.memory.steps_before = self.agent.total_train_steps

    def _add_callbacks(self, page: VisualizationOptions, start: Start | None) -> None:
        """Those who are told of every step: statistics, progress, scores, a viewer, the page of the filters."""
        self.statistics = Statistics(self.agent, self._csv)
        if start and start.checkpoint:
            self.statistics.restore(start.checkpoint.state["statistics"], same_phase=False)
        self._scores = Scores()
        self.agent.callbacks = [self.statistics, Progress(self.statistics, self.options.epochs), self._scores]
        if self.viewer:
            explain = Saliency(self.network.layers, lambda: self.network.train_iterations)
            self.viewer.attach(self.agent, explain)
            self.agent.callbacks.append(self.viewer)
        if page.visualization_file:
            origin = str(start.path) if start else "none, the weights are random"
            game = self._facts["game"]
            game_name = Path(game).stem if self._facts["options"]["environment"] == "ale" else game
            self.agent.callbacks.append(Visualization(self.agent, self.network.layers(), page, game_name, origin))

    def go(self) -> None:
        """Plays, or trains and tests; what is recorded is complete if that comes to its end, or a viewer ends it."""
        try:
            if self.options.play_games:
                self.play()
            else:
                self.train()
        except Interrupted:
            if not (self.viewer and self.viewer.quit):
                raise
        for watcher in self._watchers:
            watcher.finish()

    def close(self) -> None:
        """Frees what the run holds."""
        for watcher in self._watchers:
            watcher.close()
        try:
            self.games.close()
        finally:
            if self._lock:
                self._lock.close()

    def show_scores(self) -> None:
        """Shows what the games played came to, if there are any; files are for all that were asked for."""
        if not self.options.play_games:
            return
        folder, played = self.options.scores_path, len(self._scores.games)
        if folder and played == self.options.play_games:
            write_scores(Path(folder), self._scores.games)
        elif folder:
            logger.warning("Only %d of %d games: nothing new in %s", played, self.options.play_games, folder)
        if played:  # last, as who reads it may have gone
            print(table(self._scores.games), flush=True)

    def train(self) -> None:
        """Random moves, then epochs of training and testing, from the phase on at which the run begins."""
        try:
            for phase, epoch in self._stages():
                self._stage = (phase, epoch)
                self._play_stage(phase, epoch)
        except Interrupted:
            self._save_moment(checkpoint=True)
            raise
        except Exception:  # a full disk, say: what was learned since the last snapshot may still find room
            with contextlib.suppress(SimpleDQNError):
                self._save_moment(checkpoint=False)
            raise
        finally:
            self._sum_up()

    def _stages(self) -> Iterator[tuple[str, int]]:
        """The phases that are left, each with its epoch."""
        phase, epoch = self._stage
        if phase == "random":
            yield "random", 0
            phase, epoch = self._then
        if phase == "test":
            yield "test", epoch
            epoch += 1
        for later in range(epoch, self.options.epochs + 1):
            yield "train", later
            yield "test", later

    def _play_stage(self, phase: str, epoch: int) -> None:
        o, agent = self.options, self.agent
        if phase == "random":
            self._phase("random", 0, o.random_steps, agent.random)
        elif phase == "train":
            self._phase("train", epoch, o.train_steps, agent.train, already=agent.total_train_steps - self._epoch_began)
            if o.train_steps and not self.memory.ready:
                logger.warning("Nothing was learned: %d transitions make no minibatch yet", self.memory.count)
            self._epoch, self._epoch_began = epoch, agent.total_train_steps
            for name in _SCORES:  # they were another epoch's
                self._facts.pop(name, None)
            self._stage = ("test", epoch)
            self._save(epoch)
        elif o.test_games or o.test_steps:
            play = agent.play if o.test_games else agent.test
            self._phase("test", epoch, o.test_games or o.test_steps, play)
            score = self.statistics.mean_reward
            self._facts |= {"test_score": score, "test_games": self.statistics.num_games}
            self._stage = ("train", epoch + 1)
            self._save(epoch)

    def play(self) -> None:
        """Plays games."""
        try:
            self._phase("play", 0, self.options.play_games, self.agent.play)
        finally:
            self._sum_up()

    def _phase(self, name: str, epoch: int, number: int, play: Callable[[int], None], already: int = 0) -> None:
        """Runs a phase of so many steps, or games, less those done already, and tells the callbacks of it."""
        going_on, self._going_on = self._going_on, None
        if going_on and name == "random":
            already = going_on["num_steps"]
        if number <= already and not going_on:
            return
        if self.agent.interrupted:  # while a snapshot was being saved
            raise Interrupted
        logger.info("%s%s", name.capitalize(), f" {epoch}/{self.options.epochs}" if epoch else "")
        # Without the statistics of the steps before, a phase is told to be as long as what is left of it.
        steps = number if going_on else number - already
        for callback in self.agent.callbacks:
            callback.on_phase_start(name, epoch, None if play == self.agent.play else steps)
        self._under_way = True
        if going_on:
            self.statistics.restore(going_on, same_phase=True)
        play(number - already)
        for callback in self.agent.callbacks:
            callback.on_phase_end()
        if self.agent.interrupted:
            raise Interrupted
        self._under_way = False

    def _save(self, number: int, checkpoint: bool = True) -> None:
        """Saves PREFIX_number.pkl and its checkpoint, if there is a prefix and this run trains.

        Args:
            number: of the epoch.
            checkpoint: whether all is as it is between two steps, so that a checkpoint makes sense.
        """
        if not self._prefix:
            return
        path = Path(f"{self._prefix}_{number}.pkl")
        facts = self._facts | {
            "epoch": self._epoch,
            "epoch_began": self._epoch_began,
            "total_train_steps": self.agent.total_train_steps,
            "weight_updates": self.network.train_iterations,
        }
        write_snapshot(path, Snapshot(self.network.layers(), self.network.state_shape, facts))
        self._saved += [path] if path not in self._saved else []
        self._saved_transitions = int(self.memory.added.sum())
        logger.info("Saved %s", path)
        if self._checkpoints and checkpoint:
            state = dict(
                facts=facts,
                stage=self._stage,
                then=self._then,
                under_way=self._under_way,
                agent=self.agent.save_state(),
                games=self.games.state(),
                memory=self.memory.state(),
                network=self.network.state(),
                statistics=self.statistics.save_state(self._under_way),
            )
            self._checkpoints.save(number, state, self.memory)

    def _save_moment(self, checkpoint: bool) -> None:
        """Saves what was played and learned since the last snapshot, as that of the epoch under way."""
        self.statistics.require_finite_loss()
        if self.memory.added.sum() != self._saved_transitions:
            broken_off = self.agent.total_train_steps > self._epoch_began
            self._save(self._epoch + broken_off, checkpoint=checkpoint)

    def _take_over(self, start: Start, snapshot: Snapshot) -> None:
        """Goes on from a snapshot: its weights and, where training is resumed, its counters."""
        logger.info("Loading weights from %s", start.path)
        trained_on = start.facts.get("actions", self.games.action_names)
        try:
            optimizer = start.facts.get("options", {}).get("optimizer")
            self.network.load_layers(snapshot.layers, str(start.path), optimizer)
        except SnapshotError as error:
            game = start.facts.get("game")
            raise SnapshotError(f"{error}" + (f" (it was trained on {game})" if game else "")) from None
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise SnapshotError(f"{start.path} is damaged: its layers do not fit together. Use another one.") from error
        if trained_on != self.games.action_names:
            ours = " ".join(self.games.action_names)
            logger.warning("The actions of %s are %s, here %s", start.path, " ".join(trained_on), ours)
        self._facts |= {name: start.facts[name] for name in _SCORES if name in start.facts}
        if self.options.resume:
            self.agent.total_train_steps = start.facts.get("total_train_steps", self.agent.total_train_steps)
            self._epoch_began = start.facts.get("epoch_began", self.agent.total_train_steps)
            self.network.train_iterations = start.facts.get("weight_updates", 0)
            logger.info("No checkpoint: going on with the weights of epoch %d and an empty memory", self._epoch)

    def _transitions_to_hold(self, lanes: int, start: Start | None) -> int:
        """The most transitions that training adds to the memory, those of the checkpoint among them."""
        o, checkpoint = self.options, start and start.checkpoint
        of_random, of_epoch = (-(-steps // lanes) * lanes for steps in (o.random_steps, o.train_steps))
        if not checkpoint:
            return of_random + max(0, o.epochs - o.start_epoch) * of_epoch
        # If the options are those of the run before, these two are equal: the memory is laid out as it was.
        facts, added = checkpoint.state["facts"], checkpoint.state["memory"]["added"]
        before_epoch = lanes * max(added) - (facts["total_train_steps"] - facts["epoch_began"])
        as_planned = before_epoch + max(0, o.epochs - o.start_epoch) * of_epoch
        return max(of_random + o.epochs * of_epoch, as_planned, lanes * max(added))

    def _go_on(self, checkpoint: Checkpoint) -> None:
        """Brings every part to where it was when the checkpoint was saved."""
        state = checkpoint.state
        try:
            phase, epoch = state["stage"]
            self._then = checkpoint.due
            self._epoch_began = state["facts"]["epoch_began"]
            self._facts |= {name: state["facts"][name] for name in _SCORES if name in state["facts"]}
            self.network.restore(state["network"])
            self.agent.restore(state["agent"])
            same_number = len(state["games"]) == len(self.games)
            same_games = same_number and self.games.restore(state["games"])
            if not same_games:
                state["statistics"]["scores"].clear()
            if same_number and not same_games:
                logger.info("This environment cannot be brought to where it was: new games begin")
            if not same_number or not self.memory.fits(state["memory"]):
                logger.info("The replay memory is laid out otherwise now: it starts empty, and random steps fill it")
                self._stage = ("random", 0)
                return
            restore_memory(self.memory, checkpoint)
            if not same_games:
                self.memory.cut()
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"{checkpoint.path} is damaged: its values do not fit together. Name a snapshot (.pkl) instead."
            ) from error
        self._stage = (phase, epoch)
        self._going_on = state["statistics"] if state["under_way"] and phase != "test" else None  # tests begin anew
        self._saved_transitions = int(self.memory.added.sum())  # nothing has been done since
        if self._prefix and prefix_of(checkpoint.path).resolve() == Path(self._prefix).resolve():
            self._chunks = checkpoint.chunks
        news = self._other_options(state["facts"]["options"])
        same = ", as if nothing had happened" if same_games else ""
        logger.info("Going on from %s%s", checkpoint.path, f", with another {', '.join(news)}" if news else same)

    def _other_options(self, before: dict[str, Any]) -> list[str]:
        """The options, as words, that change how a training goes on."""
        now = {name: value for name, value in self._facts["options"].items() if name not in ("game", "epochs")}
        return [f"--{name}" for name, value in now.items() if value != before.get(name, value)]

    def _set_aside(self, prefix: Path, number: int, start: Start | None) -> None:
        """Moves an earlier run's files away, or the epochs after the one that this run goes on from."""
        o, after = self.options, self.options.start_epoch or -1
        if start and o.resume:
            after = -1  # because the files there are another run's
            if prefix_of(start.path).resolve() == prefix.resolve():
                after = number_of(Path(o.resume))
                if after < 0 or prefix_of(Path(o.resume)).name != prefix.name:
                    return  # because it continues from the last epoch
        folder = Path(f"{prefix}.{number}")
        moved = set_aside(prefix, folder, after)
        if moved:
            names = moved[0].name + (f" … ({len(moved)} files)" if len(moved) > 1 else "")
            again = f"./resume.sh {folder / prefix.name}"
            logger.info("Moved an earlier run's %s to %s. Continue that run with %s", names, folder, again)

    def _rows_to_keep(self, start: Start | None) -> dict[str, Any]:
        if start and ships(start.path):  # because the CSV file of that name belongs to another run
            return {}
        if start and start.checkpoint:
            phase, epoch = start.checkpoint.due
            stage = tuple(start.checkpoint.state["stage"])
            done_again = stage[0] != "train" or stage == self._stage
            return dict(keep_before=(epoch, phase), random_again=stage[0] == "random", done_again=done_again)
        return dict(keep_steps=self.agent.total_train_steps) if self.options.resume or self.options.start_epoch else {}

    def _sum_up(self) -> None:
        """Says what was written where."""
        if self._saved:
            more = f" … {self._saved[-1].name} ({len(self._saved)} snapshots)" if len(self._saved) > 1 else ""
            logger.info("Snapshots are in %s%s", self._saved[0], more)
        if self._csv:
            logger.info("Statistics are in %s (%d new rows)", self._csv.path, self._csv.rows)


class Interrupted(Exception):
    """The user, or the system, wants the run to stop, and the phase under way has been brought to an end."""


@contextlib.contextmanager
def stop_on_interrupt(run: Run) -> Iterator[None]:
    """After Ctrl-C, SIGTERM or SIGHUP the agent finishes its step and the run saves what it has.

    A second one ends it at once, but for giving back a terminal that shows the game. Under nohup SIGHUP stays ignored.

    Raises:
        Interrupted: with the signal's number.
    """
    received = []

    def stop(signum: int, frame: FrameType | None) -> None:
        run.agent.interrupted = True
        received.append(signum)
        signal.signal(signum, end if run.viewer else signal.SIG_DFL)
        logger.info("Interrupted: coming to an end (Ctrl-C again ends at once)")

    def end(signum: int, frame: FrameType | None) -> None:
        assert run.viewer
        run.viewer.close()
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)

    # Shells have programs in the background ignore Ctrl-C, but these heed it from `kill`.
    under_nohup = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
    before = {signum: signal.signal(signum, stop) for signum in set(ENDING_SIGNALS) - under_nohup}
    try:
        yield
    except Interrupted:
        raise Interrupted(received[0] if received else signal.SIGINT) from None
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _require_sense(o: MainOptions, page: VisualizationOptions, start: Start | None) -> None:
    """Raises OptionError if the options contradict each other, OutputError if a file they name cannot be written."""
    to_test = start and start.checkpoint and start.checkpoint.due[0] == "test"
    if o.resume and o.start_epoch >= o.epochs and not to_test:
        raise OptionError(f"--resume {o.resume}: epoch {o.start_epoch} was the last of {o.epochs}; --epochs N goes on")
    html = page.visualization_file
    if o.scores_path and not o.play_games:
        raise OptionError(f"--scores_path {o.scores_path} is for the scores of games played: add --play_games 1")
    if html and not o.play_games:
        raise OptionError(f"--visualization_file {html} shows what was seen in games played: add --play_games 1")
    if not (o.play_games or o.random_steps or (o.epochs and (o.train_steps or o.test_steps or o.test_games))):
        raise OptionError(
            "nothing to do: give --random_steps, --play_games, or --epochs with --train_steps, --test_steps or "
            "--test_games, above 0"
        )
    snapshot = o.save_weights_prefix and f"{o.save_weights_prefix}_1.pkl"
    scores = o.scores_path and f"{o.scores_path}/scores.csv"
    for path in filter(None, (o.csv_file, snapshot, html, scores)):
        require_writable(Path(path))


def _require_places_of_their_own(values: dict[str, Any], start: Start | None) -> None:
    """Raises OptionError if a file that the run writes is a folder, or would replace another file of the run."""
    for name, kind in _FILES.items():
        if values.get(name) and _names_folder(values[name]):
            example = Path(values[name]) / f"pong.{kind}"
            raise OptionError(f"--{name} {values[name]} is a folder: name a file in it, as in {example}")
    prefix = values.get("save_weights_prefix") or "snapshots/pong"
    if _names_folder(prefix, existing=False) or prefix.endswith((".pkl", ".prm", ".checkpoint")):
        what = "is a folder" if _names_folder(prefix, existing=False) else "is a snapshot's name"
        raise OptionError(
            f"--save_weights_prefix {prefix} {what}: give what the snapshots' names begin with, as in snapshots/pong"
        )
    inputs = [Path(values[name]) for name in ("game", "load_weights", "resume") if values.get(name)]
    taken = {path.resolve(): str(path) for path in (*inputs, *([start.path] if start else [])) if path.is_file()}
    for name in _FILES:
        if values.get(name):
            path = Path(values[name]).resolve()
            if path in taken:
                raise OptionError(f"--{name} {values[name]} would replace {taken[path]}: name another file")
            taken[path] = f"the file of --{name}"


def _names_folder(path: str, existing: bool = True) -> bool:
    return os.path.basename(path) in ("", ".", "..") or (existing and os.path.isdir(path))


def _actions(start: Start, env_options: EnvironmentOptions) -> list[str] | None:
    """The actions that the network to start from has learned, if it was in this game; an emulator may have others."""
    facts, game = start.facts, env_options.game
    if env_options.environment != "ale":
        return None
    if "actions" in facts:
        minimal = facts.get("options", {}).get("minimal_action_set", env_options.minimal_action_set)
        same = same_game("ale", str(facts.get("game")), game) and minimal == env_options.minimal_action_set
        return list(facts["actions"]) if same else None
    outputs = len(start.snapshot.layers[-1].params.get("W", ())) if start.snapshot and start.snapshot.layers else 0
    if same_game("ale", game, "pong") and env_options.minimal_action_set and outputs == len(_PONG_OF_2015):
        logger.info("%s has 3 actions, those of Pong in 2015: %s", start.path, " ".join(_PONG_OF_2015))
        return list(_PONG_OF_2015)
    return None


def library_of(backend: BackendOptions) -> tuple[type[DeepQNetwork] | type[NeonNetwork], bool]:
    """The class of the network, and whether it leaves the processor's cores to the games."""
    if backend.library == "neon":
        return NeonNetwork, find_backend(backend) == "gpu"
    return DeepQNetwork, find_device(backend).type == "cuda"


def _seed(common: CommonOptions) -> int:
    if common.random_seed is not None:
        return common.random_seed
    seed = secrets.randbelow(2**31)
    logger.info("Random seed: %d", seed)
    return seed
