"""Games as the agent plays them: one, or several side by side, in this process or in processes of their own."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simple_dqn.environment import Environment, EnvironmentOptions, Mode, Screen, Watcher, make_environment
from simple_dqn.errors import GameError, SimpleDQNError
from simple_dqn.replay_memory import CUT, GOES_ON, TERMINAL
from simple_dqn.state_buffer import StateBuffer

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last: the terminal has gone
GIVEN_UP = 3  # beside those: a watcher wants another game, and this one does not count


class Board(NamedTuple):
    """What there is to see of so many games."""

    states: NDArray[np.uint8]  # (games, history, height, width), what the agent sees now
    screens: NDArray[np.uint8]  # (games, height, width), what the last actions led to
    rewards: NDArray[np.float64]  # (games,), of the last actions
    ends: NDArray[np.uint8]  # (games,), GOES_ON, TERMINAL, CUT or GIVEN_UP after the last actions

    def part(self, first: int, stop: int) -> Board:
        """Of the games from `first` to before `stop`."""
        games = slice(first, stop)
        return Board(self.states[games], self.screens[games], self.rewards[games], self.ends[games])


def make_board(number: int, state_shape: tuple[int, int, int], buffer: Any = None) -> Board:
    """A board in the bytes of `buffer`, `board_size` of them, or in fresh ones."""
    _, height, width = state_shape
    raw = np.frombuffer(buffer or bytearray(board_size(number, state_shape)), np.uint8)
    rewards, ends, screens, states = np.split(raw, np.cumsum([8 * number, number, number * height * width]))
    return Board(
        states.reshape(number, *state_shape), screens.reshape(number, height, width), rewards.view(np.float64), ends
    )


def board_size(number: int, state_shape: tuple[int, int, int]) -> int:
    """Bytes of a board of so many games."""
    history, height, width = state_shape
    return number * (8 + 1 + (history + 1) * height * width)


class Game:
    """A game that is never over: where an episode ends, the next one begins, with a random number of no-ops.

    The first screen fills the state, and the screens of the no-ops follow. No-ops make games differ. Their rewards do
    not count, because the agent did not choose them. A game without an action called NOOP begins without a move.

    Args:
        environment: the game.
        state: where the agent sees it.
        random_starts: at most this many no-ops.
        rng: draws their number.
    """

    def __init__(
        self, environment: Environment, state: StateBuffer, random_starts: int, rng: np.random.Generator
    ) -> None:
        self.environment = environment
        self._state = state
        self._random_starts = random_starts
        self._rng = rng
        self._started = False

    def begin(self, mode: Mode, anew: bool) -> None:
        """Goes on in `mode`, or begins an episode, if asked to or if there is none that goes on."""
        self.environment.mode = mode  # in which a life just lost may be an end
        if anew or not self._started or self.environment.is_terminal():
            self._restart()

    def steer(self, action: int) -> int:
        """The action to play where the agent chose `action`."""
        for watcher in self.environment.watchers:
            action = watcher.steer(action)
        return action

    def act(self, action: int, screen: Screen) -> tuple[float, int]:
        """Plays `action`; fills `screen` with what it led to; returns its reward and what became of the episode."""
        environment = self.environment
        reward = environment.act(action)
        if not math.isfinite(reward):
            raise GameError(f"the game's reward is {reward}, which is nothing to learn from")
        screen[...] = environment.screen()
        self._state.add(screen)
        end = self._end()
        if end != GOES_ON:
            self._restart()
        return reward, end

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        return dict(
            environment=self.environment.state(),
            mode=self.environment.mode,
            screens=self._state.screens.copy(),
            rng=self._rng.bit_generator.state,
            started=self._started,
        )

    def restore(self, state: dict[str, Any]) -> bool:
        """Goes on exactly where a game was; where the environment cannot, with a new one, and returns False."""
        self._rng.bit_generator.state = state["rng"]
        if state["environment"] is None:
            return False
        self.environment.restore(state["environment"])
        self.environment.mode = state["mode"]
        self._state.screens[...] = state["screens"]
        self._started = state["started"]
        return not self.environment.is_terminal()  # as it is under a time limit that is shorter now

    def _end(self) -> int:
        if self.environment.is_terminal():
            return CUT if self.environment.truncated else TERMINAL
        return GIVEN_UP if any(watcher.wants_restart() for watcher in self.environment.watchers) else GOES_ON

    def _restart(self) -> None:
        self._started = True
        self._begin_episode()
        noop = self.environment.noop
        if noop is None:
            return
        least = min(self._state.history_length, self._random_starts)
        for _ in range(self._rng.integers(least, self._random_starts, endpoint=True)):
            self.environment.act(noop)
            if self.environment.is_terminal():
                self._begin_episode()
            else:
                self._state.add(self.environment.screen())

    def _begin_episode(self) -> None:
        self.environment.restart()
        screen, expected = self.environment.screen(), self._state.screens.shape[1:]
        if screen.dtype != np.uint8 or screen.shape != expected:
            raise GameError(f"the game's screens are {screen.dtype} of shape {screen.shape}, not uint8 of {expected}")
        self._state.fill(screen)


class Games:
    """Games side by side in this process.

    Attributes:
        board: where there is to see what becomes of them.
        num_actions, action_names: as the environments have them.
        cores_taken: processor cores at work on games while the network learns.

    Args:
        environments: the games, all of one kind.
        board: where there is to see what becomes of them.
        random_starts: at most this many no-ops at the start of an episode.
        rngs: draw their number, one for each game.
    """

    cores_taken = 0

    def __init__(
        self,
        environments: Sequence[Environment],
        board: Board,
        random_starts: int,
        rngs: Sequence[np.random.Generator],
    ) -> None:
        self.board = board
        self.num_actions, self.action_names = environments[0].num_actions, environments[0].action_names
        states = map(StateBuffer, board.states)
        self.games = [
            Game(env, state, random_starts, rng) for env, state, rng in zip(environments, states, rngs, strict=True)
        ]
        self._actions: Sequence[int | None] = ()

    def __len__(self) -> int:
        return len(self.board.states)

    @property
    def cores_left(self) -> int | None:
        """Processor cores for the network; None: all there are."""
        return num_cores() - self.cores_taken if self.cores_taken else None

    def begin(self, mode: Mode, anew: bool) -> None:
        """All games go on in `mode`, or begin an episode, if asked to or if there is none yet."""
        for game in self.games:
            game.begin(mode, anew)

    def start(self, actions: Sequence[int | None]) -> Sequence[int | None]:
        """Has the first `len(actions)` games play, but for those whose action is None; `finish` must follow.

        Returns the actions that they play: those chosen, unless somebody else has the joystick.
        """
        self._actions = [
            None if action is None else game.steer(action) for game, action in zip(self.games, actions, strict=False)
        ]
        return self._actions

    def finish(self) -> None:
        """Returns once they have played; the board tells what came of it."""
        board = self.board
        for i, action in enumerate(self._actions):
            if action is not None:
                board.rewards[i], board.ends[i] = self.games[i].act(action, board.screens[i])

    def state(self) -> list[dict[str, Any]]:
        """All that `restore` needs, of each game."""
        return [game.state() for game in self.games]

    def restore(self, states: Sequence[dict[str, Any]]) -> bool:
        """Goes on exactly where so many games were; False if some have to begin anew."""
        restored = [game.restore(state) for game, state in zip(self.games, states, strict=True)]
        return all(restored)

    def close(self) -> None:
        """Frees what the games hold."""
        for game in self.games:
            game.environment.close()


class GameWorkers(Games):
    """Games side by side in processes of their own, which share the board: the same results, sooner.

    Args:
        make: makes the environment of game number so-and-so; the processes call it.
        processes: how many, at most one a game.
        in_turn: the network computes when they do not play.
        number, state_shape, random_starts, rngs: as for `Games` and `make_board`.
    """

    def __init__(
        self,
        make: Callable[[int], Environment],
        processes: int,
        in_turn: bool,
        number: int,
        state_shape: tuple[int, int, int],
        random_starts: int,
        rngs: Sequence[np.random.Generator],
    ) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would inherit the network's threads half-alive
        buffer = context.RawArray("B", board_size(number, state_shape))
        self.board = make_board(number, state_shape, buffer)
        self.cores_taken = 0 if in_turn else processes
        self.processes: list[BaseProcess] = []
        self._workers: list[tuple[Connection, range]] = []
        bounds = [number * i // processes for i in range(processes + 1)]
        for numbers in map(range, bounds, bounds[1:]):
            ours, theirs = context.Pipe()
            args = (
                theirs,
                make,
                numbers,
                buffer,
                number,
                state_shape,
                random_starts,
                rngs[numbers.start : numbers.stop],
            )
            self.processes.append(context.Process(target=_work, args=args, daemon=True))
            self.processes[-1].start()
            theirs.close()
            self._workers.append((ours, numbers))
        replies = [_receive(connection) for connection, _ in self._workers]
        self.num_actions, self.action_names = replies[0]

    def begin(self, mode: Mode, anew: bool) -> None:
        self._ask(lambda numbers: ("begin", mode, anew))

    def start(self, actions: Sequence[int | None]) -> Sequence[int | None]:
        self._playing = [
            (connection, numbers)
            for connection, numbers in self._workers
            if any(action is not None for action in actions[numbers.start : numbers.stop])
        ]
        for connection, numbers in self._playing:
            _send(connection, ("play", actions[numbers.start : numbers.stop]))
        return actions

    def finish(self) -> None:
        for connection, _ in self._playing:
            _receive(connection)

    def state(self) -> list[dict[str, Any]]:
        return [state for states in self._ask(lambda numbers: ("state",)) for state in states]

    def restore(self, states: Sequence[dict[str, Any]]) -> bool:
        return all(self._ask(lambda numbers: ("restore", states[numbers.start : numbers.stop])))

    def close(self) -> None:
        for connection, _ in self._workers:
            connection.close()

    def _ask(self, message: Callable[[range], tuple[Any, ...]]) -> list[Any]:
        """Sends every process the message for its games, and returns what they reply."""
        for connection, numbers in self._workers:
            _send(connection, message(numbers))
        return [_receive(connection) for connection, _ in self._workers]


_DEAD = "a process that plays games has died: is there enough memory for --num_envs?"


def _send(connection: Connection, message: Any) -> None:
    try:
        connection.send(message)
    except OSError:
        raise GameError(_DEAD) from None


def _receive(connection: Connection) -> Any:
    try:
        reply = connection.recv()
    except (EOFError, OSError):
        raise GameError(_DEAD) from None
    if isinstance(reply, Exception):
        raise reply
    return reply


def _work(
    connection: Connection,
    make: Callable[[int], Environment],
    numbers: range,
    buffer: Any,
    number: int,
    state_shape: tuple[int, int, int],
    random_starts: int,
    rngs: Sequence[np.random.Generator],
) -> None:
    """Plays games until the connection ends, as it does when the other process is gone."""
    for signum in ENDING_SIGNALS:  # they are for the process that learns
        signal.signal(signum, signal.SIG_IGN)
    try:
        board = make_board(number, state_shape, buffer).part(numbers.start, numbers.stop)
        games = Games([make(i) for i in numbers], board, random_starts, rngs)
        connection.send((games.num_actions, games.action_names))
        while True:
            name, *arguments = connection.recv()
            if name == "play":
                games.start(*arguments)
                games.finish()
                connection.send(None)
            else:
                connection.send(getattr(games, name)(*arguments))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    except (SimpleDQNError, OSError, MemoryError) as error:
        connection.send(error)
    except Exception:
        connection.send(RuntimeError(f"a process that plays games failed:\n{traceback.format_exc()}"))


def make_games(
    options: EnvironmentOptions,
    state_shape: tuple[int, int, int],
    random_starts: int,
    seed: np.random.SeedSequence,
    number: int = 1,
    on_gpu: bool = False,
    in_turn: bool = False,
    watchers: Sequence[Watcher] = (),
    actions: Sequence[str] | None = None,
) -> Games:
    """So many games of one kind, each with randomness of its own, and as many processes as serve them best.

    Args:
        options: which game.
        state_shape, random_starts: as for `Games`.
        seed: of their randomness.
        number: of games.
        on_gpu: the network leaves the processor's cores alone.
        in_turn: it computes only when they do not play, so that both have all cores.
        watchers: see the first game. They are part of this process, so then the games are, too: the result is the same.
        actions: as for `make_environment`.

    Raises:
        GameError: as `make_environment` does.
    """
    seeds = seed.spawn(number)
    rngs = [np.random.default_rng(own) for own in seeds]
    make = partial(_make, options, [int(own.generate_state(1)[0]) >> 1 for own in seeds], watchers, actions)
    processes = 0 if watchers else min(number, _cores_to_play(on_gpu, in_turn))
    if number == 1 or processes == 0:
        return Games([make(i) for i in range(number)], make_board(number, state_shape), random_starts, rngs)
    return GameWorkers(make, processes, in_turn, number, state_shape, random_starts, rngs)


def _cores_to_play(on_gpu: bool, in_turn: bool) -> int:
    """How many cores play games: all if they play `in_turn` with learning, else while the others, or the GPU, learn.

    The network splits every layer evenly among its cores, so one that also plays keeps all the others waiting: two or
    three cores had better play and learn in turn (docs/speed.md).
    """
    cores = num_cores()
    if in_turn:
        return cores if cores > 1 else 0  # processes on one core would only add messages
    return cores - 1 if on_gpu else cores // 4


def leave_cores_to_games() -> None:
    """Has OpenMP's threads wait less busily for the next layer, on cores that play in turn with the network.

    But not so little that they sleep between layers (docs/speed.md). OpenMP looks here once, when torch is imported, so
    this comes first.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def num_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _make(
    options: EnvironmentOptions,
    seeds: Sequence[int],
    watchers: Sequence[Watcher],
    actions: Sequence[str] | None,
    number: int,
) -> Environment:
    return make_environment(options, seeds[number], () if number else watchers, actions)
