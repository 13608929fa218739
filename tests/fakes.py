"""Stand-ins for the parts of a run: they write what happens to a tape, so that tests can assert the order of events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ale_py
import numpy as np
import pytest
from numpy.typing import NDArray

from simple_dqn.agent import Agent, AgentOptions, Callback, Step
from simple_dqn.deepqnetwork import BackendOptions, DeepQNetwork, DeepQNetworkOptions, TrainResult
from simple_dqn.environment import Environment, EnvironmentOptions, Picture, Screen
from simple_dqn.errors import OptionError
from simple_dqn.games import make
from simple_dqn.games.ale import ALEEnvironment
from simple_dqn.games.game import Game, GameSpec, make_environment
from simple_dqn.games.games import Games, SharedArrays
from simple_dqn.games.roms import find_rom
from simple_dqn.learning.neon_network import load_neon
from simple_dqn.options import build
from simple_dqn.replay.prioritized import memory_class
from simple_dqn.replay_memory import Minibatch, ReplayMemory, ReplayMemoryOptions, TargetParts
from simple_dqn.saving.snapshot import Layer
from simple_dqn.state_buffer import StateBuffer
from simple_dqn.statistics import Statistics
from simple_dqn.watching.display import Decision, QScale, Scene
from simple_dqn.watching.watcher import Watcher

HEADER = (
    "epoch,phase,steps,nr_games,average_reward,min_game_reward,max_game_reward,last_exploration_rate,"
    "total_train_steps,replay_memory_count,meanq,meancost,weight_updates,total_time,epoch_time,steps_per_second"
)


END, GAP = "end", "gap"  # of an episode; after a transition that the next one does not follow


def make_memory(
    size: int, history: int = 4, batch: int = 3, seed: int = 0, lanes: int = 1, **options: Any
) -> ReplayMemory:
    """A replay memory, prioritized or not, of screens of 2x3 pixels."""
    memory_options = ReplayMemoryOptions(replay_size=size, history_length=history, **options)
    rng = np.random.default_rng(seed)
    return memory_class(memory_options)(memory_options, (2, 3), batch, rng, lanes=lanes)


def fill(memory: ReplayMemory, events: Sequence[str | None], lane: int = 0) -> None:
    """Add one transition per event. Screen, action and reward of transition n are n; screen and action modulo 251."""
    for n, event in enumerate(events, int(memory.added[lane])):
        memory.add(n % 251, n, np.full((2, 3), n % 251, np.uint8), event == END, lane)
        if event == GAP:
            memory.cut(lane)


def large_batch(memory: ReplayMemory) -> Minibatch:
    """200 transitions, as a rule all of a small memory."""
    memory.batch_size = 200
    return memory.minibatch()


def conv(weights: Any, stride: int = 1) -> Layer:
    """A layer as a snapshot has it, of weights (filters, channels, height, width)."""
    weights = np.asarray(weights, np.float32)
    filters, _, height, width = weights.shape
    neon = np.ascontiguousarray(weights.transpose(1, 2, 3, 0)).reshape(-1, filters)
    return Layer("Convolution", {"fshape": (height, width, filters), "strides": stride}, {"W": neon}, [])


def linear(weights: Any) -> Layer:
    """A fully connected layer as a snapshot has it, of weights (outputs, inputs)."""
    return Layer("Linear", {"nout": len(weights)}, {"W": np.asarray(weights, np.float32)}, [])


def random_states(rng: np.random.Generator, *shape: int) -> NDArray[np.uint8]:
    return rng.integers(256, size=shape, dtype=np.uint8)


class Clock:
    """A second passes between two calls."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        self.now += 1
        return self.now


def _why_no_neon() -> str:
    try:
        load_neon()
    except OptionError as error:
        return f"Neon cannot be imported: {error.__context__}"
    return ""


needs_neon = pytest.mark.skipif(bool(_why_no_neon()), reason=_why_no_neon())


class FakeEnvironment(Environment):
    """Episodes of fixed length; screen number n is filled with n, and action a earns reward a."""

    def __init__(self, episode: int = 5, tape: list[Any] | None = None) -> None:
        self.tape: list[Any] = [] if tape is None else tape
        self.episode = episode
        self.frame = 0
        self.time = 0
        self.cut_short = False  # the ends of episodes are time limits
        self.names = ["NOOP", "LEFT", "RIGHT"]

    @property
    def num_actions(self) -> int:
        return 3

    @property
    def action_names(self) -> list[str]:
        return self.names

    def restart(self) -> None:
        self.tape.append(("restart", self.mode))
        self.time = 0

    def act(self, action: int) -> float:
        assert not self.is_terminal(), "acted after the end of an episode"
        self.tape.append(("act", action))
        self.frame += 1
        self.time += 1
        return action

    def screen(self) -> Screen:
        return np.full((4, 5), self.frame % 256, np.uint8)

    def is_terminal(self) -> bool:
        return self.time >= self.episode

    @property
    def truncated(self) -> bool:
        return self.cut_short


def side_by_side(
    environments: Sequence[Environment],
    history: int,
    screen_shape: tuple[int, int],
    random_starts: int,
    rng: np.random.Generator,
) -> Games:
    """Games of these environments, in this process."""
    arrays = SharedArrays.make(len(environments), (history, *screen_shape))
    parts = zip(environments, arrays.states, rng.spawn(len(environments)), strict=True)
    return Games([Game(env, StateBuffer(state), random_starts, rng) for env, state, rng in parts], arrays)


def make_real_games(
    number: int, monkeypatch: pytest.MonkeyPatch, cores: int = 1, in_turn: bool = False, **options: Any
) -> Games:
    """Games as the program makes them on a machine with this many cores."""
    monkeypatch.setattr(make, "num_cores", lambda: cores)
    env_options = EnvironmentOptions(**(dict(game="pong") | options))
    spec = GameSpec(env_options, (4, 84, 84), 5, np.random.SeedSequence(3).spawn(number))
    return make.make_games(spec, in_turn=in_turn)


def ale(game: str = "breakout", seed: int = 1, **options: Any) -> ALEEnvironment:
    """An Atari game that has just started."""
    env = make_environment(EnvironmentOptions(game=game, **options), seed)
    assert isinstance(env, ALEEnvironment)
    env.restart()
    return env


def emulator(game: str = "breakout", seed: int = 1, **settings: Any) -> Any:
    """The emulator itself, as the environment should set it up."""
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    interface = ale_py.ALEInterface()
    interface.setInt("random_seed", seed)
    interface.setInt("frame_skip", settings.get("frame_skip", 4))
    interface.setFloat("repeat_action_probability", settings.get("repeat_action_probability", 0.0))
    interface.setBool("color_averaging", settings.get("color_averaging", True))
    interface.loadROM(find_rom(game))
    interface.reset_game()
    return interface


class Eye(Watcher):
    """Keeps what it sees and hears."""

    def __init__(self) -> None:
        self.pictures: list[Any] = []
        self.sounds: list[Any] = []
        self.games = self.steered = 0

    def on_game(self) -> None:
        self.games += 1

    def on_frame(self, environment: Environment) -> None:
        self.pictures.append(environment.picture())
        self.sounds.append(environment.sound())

    def steer(self, action: int) -> int:
        self.steered += 1
        return action


PONG = ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"]
SEAQUEST = ["NOOP", "FIRE", "UP", "RIGHT", "LEFT", "DOWN", "UPRIGHT", "UPRIGHTFIRE", "DOWNFIRE"]


def make_decision(names: Sequence[str] = PONG, action: int = 5, worst: float = 0.0) -> Decision:
    """A decision for `action`, with the Q-values `worst`, 1, 2 and so on; all screens of its state are 77."""
    q_values = np.array([worst, *range(1, len(names))])
    return Decision(
        names, q_values, action, np.full((4, 84, 84), 77, np.uint8), QScale().including(q_values), (1.0, 2.0, 3.0)
    )


def make_scene(picture: Picture | None = None, **parts: Any) -> Scene:
    """A scene, as a rule a random picture of an Atari game without help and decision."""
    picture = np.random.default_rng(0).integers(256, size=(210, 160, 3), dtype=np.uint8) if picture is None else picture
    return Scene(picture, 1.75, ("h: help",), (), None, None)._replace(**parts)


class Abandons(Eye):
    """Abandons the game after this many steps, once."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def wants_restart(self) -> bool:
        self.steps -= 1
        return self.steps == 0


class FakeNetwork:
    """Likes action 2 best, and learns nothing."""

    def __init__(self, tape: list[Any] | None = None) -> None:
        self.tape: list[Any] = [] if tape is None else tape
        self.train_iterations = 0
        self.batches: list[Minibatch] = []
        self.annealed: list[int] = []  # training steps

    def predict(self, states: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.tape.append(("predict", states.shape, states[0, :, 0, 0].tolist()))
        return np.tile(np.array([0, 1, 2], np.float32), (len(states), 1))

    def target_arrays(self, batch: Minibatch) -> TargetParts:
        self.tape.append(("target_arrays", len(batch.actions)))
        zeros = np.zeros(len(batch.actions), np.float32)
        return TargetParts(zeros, zeros, zeros)

    def train(self, batch: Minibatch) -> TrainResult:
        self.tape.append(("train", len(batch.actions)))
        self.train_iterations += 1
        self.batches.append(batch)
        return TrainResult(float(self.train_iterations), np.zeros(len(batch.actions), np.float32))

    def anneal(self, step: int) -> None:
        self.annealed.append(step)

    def update_target_network(self) -> None:
        self.tape.append("sync")


class Tape(Callback):
    """A callback that takes notes."""

    def __init__(self, tape: list[Any]) -> None:
        self.tape = tape

    def on_step(self, step: Step) -> None:
        self.tape.append(("step", step.action, step.reward, step.terminal))

    def on_train(self, cost: float) -> None:
        self.tape.append(("cost", cost))


def step(reward: float = 0, terminal: bool = False, truncated: bool = False, game: int = 0, rate: float = 0.5) -> Step:
    """A step that earned `reward`."""
    return Step(0, reward, np.zeros((4, 5), np.uint8), terminal, truncated, rate, game)


def make_agent(
    environments: Sequence[Environment],
    network: Any = None,
    history: int = 2,
    batch: int = 4,
    return_lambda: float = 0,
    **options: Any,
) -> Agent:
    """An agent that plays these environments; its network is fake, too."""
    rng = np.random.default_rng(1)
    memory_options = ReplayMemoryOptions(replay_size=100, history_length=history, return_lambda=return_lambda)
    memory = ReplayMemory(memory_options, (4, 5), batch, rng, lanes=len(environments))
    agent_options = AgentOptions(num_envs=len(environments), **options)
    games = side_by_side(environments, history, (4, 5), agent_options.random_starts, rng)
    return Agent(games, memory, network or FakeNetwork(), agent_options, rng)


class Catch(Environment):
    """A ball falls from the top of a 7x7 board; move the paddle at the bottom under it: +1 caught, -1 missed.

    After the bsuite environment of that name (Osband et al. 2020); seen as 44x44 pixels.
    """

    def __init__(self, rng: np.random.Generator, actions: Sequence[int] = (0, -1, 1)) -> None:
        self._rng = rng
        self._moves = actions
        self._row = self._ball = self._paddle = 0

    @property
    def num_actions(self) -> int:
        return len(self._moves)

    def restart(self) -> None:
        self._row, self._ball, self._paddle = 0, int(self._rng.integers(7)), int(self._rng.integers(7))

    def act(self, action: int) -> float:
        self._row += 1
        self._paddle = min(6, max(0, self._paddle + self._moves[action]))
        return (1 if self._ball == self._paddle else -1) if self.is_terminal() else 0

    def screen(self) -> Screen:
        board = np.zeros((7, 7), np.uint8)
        board[6, self._paddle] = 128
        board[self._row, self._ball] = 255
        return np.pad(board.repeat(6, axis=0).repeat(6, axis=1), 1)  # 44 pixels, all of which the network sees

    def is_terminal(self) -> bool:
        return self._row == 6


class CatchTraining:
    """The real agent, memory and network, ready to learn Catch with these `options` of all three."""

    def __init__(self, seed: int, num_envs: int = 1, datatype: str = "float32", **options: Any) -> None:
        rng = np.random.default_rng(seed)
        memory_options = build(ReplayMemoryOptions, dict(replay_size=5000, history_length=1) | options)
        memory = memory_class(memory_options)(memory_options, (44, 44), 32, rng, lanes=num_envs)
        network_options = build(DeepQNetworkOptions, dict(discount_rate=0.9) | options)
        backend = BackendOptions(backend="cpu", datatype=datatype)
        defaults: dict[str, Any] = dict(exploration_rate_test=0, train_frequency=1, target_steps=250, random_starts=0)
        agent_options = build(AgentOptions, defaults | dict(exploration_decay_steps=1500) | options)
        use_target = agent_options.target_steps > 0
        self.network = DeepQNetwork(3, (1, 44, 44), network_options, backend, seed, use_target)
        games = side_by_side([Catch(own) for own in rng.spawn(num_envs)], 1, (44, 44), 0, rng)
        self.agent = Agent(games, memory, self.network, agent_options, rng)
        self.statistics = Statistics(self.agent)
        self.agent.callbacks = [self.statistics]

    def score(self) -> float:
        """Mean score of 100 games, of 6 steps each, with the exploration off."""
        self.statistics.on_phase_start("test", 0, 600)
        self.agent.test(600)
        return self.statistics.mean_reward
