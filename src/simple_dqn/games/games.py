"""Games as the agent plays them: one, or several side by side, in this process or in processes of their own."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection, Pipe
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simple_dqn.environment import Environment, EnvironmentOptions, Mode, Screen, Watcher, make_environment
from simple_dqn.errors import GameError, SimpleDQNError
from simple_dqn.machine import num_cores
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
        return not self.environment.is_terminal()  # because the time limit may be shorter now

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
        """Starts a step of the first `len(actions)` games, except those whose action is None; `finish` must follow.

        Returns the actions that they play: those chosen, unless a user has the joystick.
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

    The processes end with this object, or at the latest with this process, however it ends.

    Args:
        make: makes the environment of game i, from 0; the processes call it.
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
        self.cores_taken = 0 if in_turn else processes
        self._workers: list[_Worker] = []
        self._end = weakref.finalize(self, _end, self._workers)
        bounds = [number * i // processes for i in range(processes + 1)]
        with _memory_to_share(board_size(number, state_shape)) as file:
            self.board = make_board(number, state_shape, mmap.mmap(file.fileno(), 0))
            for numbers in map(range, bounds, bounds[1:]):
                self._workers.append(_start_worker(numbers, file.fileno()))
        replies = self._ask(
            lambda numbers: (
                *("make", make, numbers, number, state_shape, random_starts),
                rngs[numbers.start : numbers.stop],
            )
        )
        self.num_actions, self.action_names = replies[0]

    @property
    def processes(self) -> list[subprocess.Popen[bytes]]:
        """The processes that play."""
        return [worker.process for worker in self._workers]

    def begin(self, mode: Mode, anew: bool) -> None:
        self._ask(lambda numbers: ("begin", mode, anew))

    def start(self, actions: Sequence[int | None]) -> Sequence[int | None]:
        self._playing = [
            worker
            for worker in self._workers
            if any(action is not None for action in actions[worker.numbers.start : worker.numbers.stop])
        ]
        for worker in self._playing:
            worker.send(("play", actions[worker.numbers.start : worker.numbers.stop]))
        return actions

    def finish(self) -> None:
        for worker in self._playing:
            worker.receive()

    def state(self) -> list[dict[str, Any]]:
        return [state for states in self._ask(lambda numbers: ("state",)) for state in states]

    def restore(self, states: Sequence[dict[str, Any]]) -> bool:
        return all(self._ask(lambda numbers: ("restore", states[numbers.start : numbers.stop])))

    def close(self) -> None:
        self._end()

    def _ask(self, message: Callable[[range], tuple[Any, ...]]) -> list[Any]:
        """Sends every process the message for its games, and returns what they reply."""
        for worker in self._workers:
            worker.send(message(worker.numbers))
        return [worker.receive() for worker in self._workers]


_PATIENCE = 5.0  # seconds that a process has to end


class _Worker(NamedTuple):
    """A process that plays games, seen from the process that learns."""

    process: subprocess.Popen[bytes]
    connection: Connection
    numbers: range  # of its games

    def send(self, message: Any) -> None:
        try:
            self.connection.send(message)
        except OSError:
            raise GameError(self._why_it_ended()) from None

    def receive(self) -> Any:
        try:
            reply = self.connection.recv()
        except (EOFError, OSError):
            raise GameError(self._why_it_ended()) from None
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _why_it_ended(self) -> str:
        try:
            status = self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            return "A process that plays games does not answer."
        if status == -signal.SIGKILL:
            why = "The system kills processes if memory runs out. Use fewer --num_envs or a smaller --replay_size."
            return f"A process that plays games was killed (signal 9). {why}"
        if status < 0:
            return f"A process that plays games crashed: {signal.strsignal(-status)} (signal {-status})."
        return f"A process that plays games ended with status {status}. Lines above may say why."


def _start_worker(numbers: range, memory: int) -> _Worker:
    """Starts a process that plays games.

    By subprocess, because multiprocessing searches the current folder for modules before the child can prevent it, and
    because its exit handler waits for children that wait for the parent.

    Args:
        numbers: of the games.
        memory: file descriptor of the board.
    """
    ours, theirs = Pipe()
    # Python reads the code before it imports anything: a file math.py in the current folder does no harm.
    code = f"import sys; sys.path[:] = {[str(folder) for folder in sys.path]}; import simple_dqn.games.games as games; "
    code += f"games.work({theirs.fileno()}, {memory})"
    # The child inherits the blocked signals. They are for the process that learns, which saves what there is.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    try:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(), memory)
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return _Worker(process, ours, numbers)


def _memory_to_share(size: int) -> IO[bytes]:
    """A file of `size` bytes, in memory where the system can: containers often have a small /dev/shm."""
    anonymous = hasattr(os, "memfd_create")
    file: IO[bytes] = os.fdopen(os.memfd_create("games"), "r+b") if anonymous else tempfile.TemporaryFile()  # noqa: SIM115
    file.truncate(size)
    return file


def _end(workers: list[_Worker]) -> None:
    """Ends the processes. They see that their connection is closed; one that does not, because it hangs, is killed."""
    for worker in workers:
        worker.connection.close()
    deadline = time.monotonic() + _PATIENCE
    for worker in workers:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        worker.process.kill()  # does nothing to one that has ended
        worker.process.wait()


def work(connection: int, memory: int) -> None:
    """Plays games in a process of its own until the other end of the connection is closed.

    Args:
        connection: file descriptor of the connection to the process that learns.
        memory: file descriptor of the board.
    """
    pipe, board_of_all = Connection(connection), mmap.mmap(memory, 0)
    games: Games
    with contextlib.suppress(EOFError, OSError):  # the process that learns has ended
        while True:
            message = pipe.recv_bytes()
            reply: Any = None
            try:
                name, *arguments = pickle.loads(message)
                if name == "make":
                    games = _make_games(board_of_all, *arguments)
                    reply = games.num_actions, games.action_names
                elif name == "play":
                    games.start(*arguments)
                    games.finish()
                else:
                    reply = getattr(games, name)(*arguments)
            except (SimpleDQNError, OSError, MemoryError) as error:
                reply = error
            except Exception:
                reply = RuntimeError(f"a process that plays games failed:\n{traceback.format_exc()}")
            pipe.send(reply)


def _make_games(
    buffer: Any,
    make: Callable[[int], Environment],
    numbers: range,
    number: int,
    state_shape: tuple[int, int, int],
    random_starts: int,
    rngs: Sequence[np.random.Generator],
) -> Games:
    """The games `numbers` of all `number` games, whose board is in `buffer`."""
    board = make_board(number, state_shape, buffer).part(numbers.start, numbers.stop)
    return Games([make(i) for i in numbers], board, random_starts, rngs)


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


def _make(
    options: EnvironmentOptions,
    seeds: Sequence[int],
    watchers: Sequence[Watcher],
    actions: Sequence[str] | None,
    number: int,
) -> Environment:
    return make_environment(options, seeds[number], () if number else watchers, actions)
