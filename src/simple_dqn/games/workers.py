"""Games in worker processes: faster than in one process, with the same results.

Messages from this process to a worker, which answers each:

    message             the worker                              answer
    make, spec, range   makes these games of a `GameSpec`       num_actions, action_names
    begin, mode, new    calls `Games.begin`                     None
    play, actions       plays a step                            None
    state               calls `Games.state`                     states of its games
    restore, states     calls `Games.restore`                   whether it could

If a worker fails, its answer is an exception, which this process raises. Results of steps are not in the messages but
in `SharedArrays`, in memory that the processes share. A worker ends when its connection closes.
"""

from __future__ import annotations

import contextlib
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
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe
from typing import IO, Any, NamedTuple

from simple_dqn.environment import Mode
from simple_dqn.errors import GameError, SimpleDQNError
from simple_dqn.games.game import GameSpec
from simple_dqn.games.games import Games, SharedArrays, games_here
from simple_dqn.interrupts import ENDING_SIGNALS

_PATIENCE = 5.0  # seconds that a worker has to end


class GameWorkers(Games):
    """Games side by side in worker processes, with the same results as `Games`.

    The workers end with this object, or at the latest with this process, even if it is killed.

    Args:
        spec: the games.
        num_workers: at most one per game.
        cores_left: processor cores for the network; None: all.
    """

    def __init__(self, spec: GameSpec, num_workers: int, cores_left: int | None = None) -> None:
        self.cores_left = cores_left
        self.workers: list[Worker] = []
        self._end = weakref.finalize(self, _end, self.workers)
        n = spec.num_games
        with _shared_memory(SharedArrays.num_bytes(n, spec.state_shape)) as file:
            self.arrays = SharedArrays.make(n, spec.state_shape, mmap.mmap(file.fileno(), 0))
            for i in range(num_workers):
                numbers = range(n * i // num_workers, n * (i + 1) // num_workers)
                self.workers.append(_start_worker(numbers, file.fileno()))
        for worker in self.workers:
            worker.send("make", spec, worker.numbers)
        self.num_actions, self.action_names = self._answers()[0]

    def begin(self, mode: Mode, new_episode: bool) -> None:
        for worker in self.workers:
            worker.send("begin", mode, new_episode)
        self._answers()

    def start(self, actions: Sequence[int | None]) -> Sequence[int | None]:
        self._playing = []
        for worker in self.workers:
            its_actions = worker.part_of(actions)
            if any(action is not None for action in its_actions):
                worker.send("play", its_actions)
                self._playing.append(worker)
        return actions

    def finish(self) -> None:
        for worker in self._playing:
            worker.receive()

    def state(self) -> list[dict[str, Any]]:
        for worker in self.workers:
            worker.send("state")
        return [state for states in self._answers() for state in states]

    def restore(self, states: Sequence[dict[str, Any]]) -> bool:
        for worker in self.workers:
            worker.send("restore", worker.part_of(states))
        return all(self._answers())

    def close(self) -> None:
        self._end()

    def _answers(self) -> list[Any]:
        return [worker.receive() for worker in self.workers]


def work(connection: int, memory: int) -> None:
    """Play games in a worker process until the connection closes.

    Args:
        connection: file descriptor of the connection to the process that learns.
        memory: file descriptor of the shared memory.
    """
    pipe, buffer = Connection(connection), mmap.mmap(memory, 0)
    games: Games
    with contextlib.suppress(EOFError, OSError):  # the process that learns has ended
        while True:
            message = pipe.recv_bytes()
            answer: Any = None
            try:
                match pickle.loads(message):
                    case "make", GameSpec() as spec, range() as numbers:
                        arrays = SharedArrays.make(spec.num_games, spec.state_shape, buffer)
                        games = games_here(spec, numbers, arrays.of(numbers))
                        answer = games.num_actions, games.action_names
                    case "begin", mode, new_episode:
                        games.begin(mode, new_episode)
                    case "play", actions:
                        games.start(actions)
                        games.finish()
                    case ("state",):
                        answer = games.state()
                    case "restore", states:
                        answer = games.restore(states)
            except (SimpleDQNError, OSError, MemoryError) as error:
                answer = error
            except Exception:  # as text, because some exceptions cannot be unpickled
                answer = RuntimeError(f"a process that plays games failed:\n{traceback.format_exc()}")
            pipe.send(answer)


class Worker(NamedTuple):
    """A worker process, seen from the process that learns."""

    process: subprocess.Popen[bytes]
    connection: Connection
    numbers: range  # of its games

    def part_of(self, values: Sequence[Any]) -> Sequence[Any]:
        """Return those of its games, of values for all games."""
        return values[self.numbers.start : self.numbers.stop]

    def send(self, *message: Any) -> None:
        """Send a message. `receive` must follow."""
        try:
            self.connection.send(message)
        except OSError:
            raise GameError(self._why_it_ended()) from None

    def receive(self) -> Any:
        """Return the answer to a message, or raise it if it is an exception."""
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            raise GameError(self._why_it_ended()) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

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


def _start_worker(numbers: range, memory: int) -> Worker:
    """Start a worker for the games `numbers`, with the file descriptor of the shared memory.

    Not by multiprocessing, because that imports modules from the current folder before the child can prevent it, and
    because its exit handler waits for children that wait for their parent.
    """
    connection, its_connection = Pipe()
    # Python sets sys.path before it imports anything, so a file math.py in the current folder does no harm.
    code = f"import sys; sys.path[:] = {[str(folder) for folder in sys.path]}; from simple_dqn.games import workers; "
    code += f"workers.work({its_connection.fileno()}, {memory})"
    # The worker inherits the blocked signals. They are for the process that learns, which saves before it ends.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    try:
        with its_connection:
            process = subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.DEVNULL, pass_fds=(its_connection.fileno(), memory)
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return Worker(process, connection, numbers)


def _shared_memory(size: int) -> IO[bytes]:
    """Return a file of `size` bytes, in memory if the system can, because /dev/shm is often small in containers."""
    anonymous = hasattr(os, "memfd_create")
    file: IO[bytes] = os.fdopen(os.memfd_create("games"), "r+b") if anonymous else tempfile.TemporaryFile()  # noqa: SIM115
    file.truncate(size)
    return file


def _end(workers: list[Worker]) -> None:
    """Close the connections, which ends the workers. Kill those that hang."""
    for worker in workers:
        worker.connection.close()
    deadline = time.monotonic() + _PATIENCE
    for worker in workers:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        worker.process.kill()  # does nothing to one that has ended
        worker.process.wait()
