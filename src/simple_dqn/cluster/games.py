"""Games on the machines of a cluster, with the same results as in one process, also if machines die.

Every share of the games is played by an actor. This process keeps a state of each share, at most `_STEPS_PER_STATE`
steps old, and what the share did since then. If an actor is lost, another one restores that state and repeats these
steps, which the emulator plays exactly as before. All other games wait, so nothing depends on timing.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from simple_dqn.cluster.machines import Machines, PlayerHere, PlayerLost, RemotePlayer
from simple_dqn.cluster.player import Facts, Message, Played, require_same_versions
from simple_dqn.environment import ABANDONED, Mode
from simple_dqn.errors import GameError, OptionError
from simple_dqn.games.game import GameSpec
from simple_dqn.games.games import Games, SharedArrays
from simple_dqn.options import Options, option
from simple_dqn.state_buffer import StateBuffer
from simple_dqn.wording import count, last_line

logger = logging.getLogger(__name__)

_STEPS_PER_STATE = 500  # 43 kB for each game: 1% of what the screens of so many steps need
_PATIENCE = 20.0  # seconds until a player must have a core
_SECONDS_PER_LOOK = 30.0  # for machines that joined or left
_LONGEST_PAUSE = 600.0  # seconds until the next look, if a core that seemed to be free was not
_MOST_DEATHS = 5  # in sequence, without a step


@dataclass(frozen=True)
class ClusterOptions(Options):
    title = "Cluster"
    cluster: str | None = option(
        None, "play the games on a Ray cluster: auto or HOST:PORT; local: Ray starts on this machine", kept="never"
    )
    cluster_cores: int = option(
        0, "at most this many cores of the cluster; 0: all that are free", at_least=0, at_most=10**6, kept="never"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cluster and not re.fullmatch(r"auto|local|[^/\s]+:\d+", self.cluster):
            raise OptionError(f"--cluster {self.cluster}: use auto, local, or HOST:PORT such as 10.0.0.1:6379")
        if self.cluster_cores and not self.cluster:
            raise OptionError(f"--cluster_cores {self.cluster_cores} is for games on a cluster: add --cluster auto")


@dataclass(eq=False)
class _Share:
    """The games of one actor.

    Attributes:
        numbers: of its games.
        base: states of its games; None: as they were made.
        since: what they did since then.
        player: who plays them.
        machine: where.
        message: what the player does now.
        answer: reference to the answer.
        deaths: players lost in sequence.
        lost_at: time at which the player was lost, until the games are where they were.
        cause: of the last loss.
    """

    numbers: range
    base: Sequence[dict[str, Any]] | None = None
    since: list[Message] = field(default_factory=list)
    player: RemotePlayer = field(default_factory=PlayerHere)
    machine: str = ""
    message: Message = ()
    answer: Any = None
    deaths: int = 0
    lost_at: float = 0
    cause: str = ""

    @property
    def is_here(self) -> bool:
        return isinstance(self.player, PlayerHere)

    @property
    def can_be_restored(self) -> bool:
        return self.base is None or all(state["environment"] is not None for state in self.base)

    def part_of(self, values: Sequence[Any]) -> Sequence[Any]:
        """Return those of its games, of values for all games."""
        return values[self.numbers.start : self.numbers.stop]

    def __str__(self) -> str:
        first, last = self.numbers[0] + 1, self.numbers[-1] + 1
        return f"game {first}" if first == last else f"games {first} to {last}"


class ClusterGames(Games):
    """Games side by side on a cluster, with the same results as `Games`.

    Args:
        spec: the games.
        machines: that play them.
        most_cores: to use; None: all that are free.
        cores_left: processor cores of this machine for the network; None: all.
    """

    def __init__(
        self, spec: GameSpec, machines: Machines, most_cores: int | None = None, cores_left: int | None = None
    ) -> None:
        self.cores_left = cores_left
        self.arrays = SharedArrays.make(spec.num_games, spec.state_shape)
        self._spec, self._seeds = spec, list(spec.seeds)
        self._machines, self._most_cores = machines, most_cores
        self._shares: list[_Share] = []
        self._began_again: set[int] = set()  # games that could not be restored, until the agent knows
        self._mode: Mode | None = None
        self._steps = 0
        self._next_look, self._pause = math.inf, _SECONDS_PER_LOOK
        try:
            self._spread(None)
        except BaseException:
            self.close()
            raise

    def begin(self, mode: Mode, new_episode: bool) -> None:
        self._spread_if_better()
        self._mode = mode
        for share, states in zip(self._shares, self._ask("begin", mode, new_episode), strict=True):
            self.arrays.of(share.numbers).states[...] = states
        if new_episode:
            self._began_again.clear()

    def start(self, actions: Sequence[int | None]) -> Sequence[int | None]:
        self._spread_if_better()
        self._actions, self._playing = actions, []
        for share in self._shares:
            its_actions = list(share.part_of(actions))
            if any(action is not None for action in its_actions):
                self._send(share, "play", its_actions)
                self._playing.append(share)
        return actions

    def finish(self) -> None:
        for share, played in zip(self._playing, self._answers(self._playing), strict=True):
            self._show(share, played)
            share.deaths = 0
        for game in [n for n in self._began_again if n < len(self._actions) and self._actions[n] is not None]:
            self.arrays.rewards[game], self.arrays.ends[game] = 0, ABANDONED
            self._began_again.remove(game)
        self._steps += 1
        if self._steps % _STEPS_PER_STATE == 0:
            for share, states in zip(self._shares, self._ask("state"), strict=True):
                share.base, share.since = states, []

    def state(self) -> list[dict[str, Any]]:
        return [state for states in self._ask("state") for state in states]

    def restore(self, states: Sequence[dict[str, Any]]) -> bool:
        for share in self._shares:
            share.base, share.since = share.part_of(states), []
            self._send(share, "restore", share.base)
        for seen, state in zip(self.arrays.states, states, strict=True):
            if state["environment"] is not None:
                seen[...] = state["screens"]
        return all(self._answers(self._shares))

    def close(self) -> None:
        self._machines.close()
        for share in self._shares:
            if share.is_here:
                share.player.close()

    def _show(self, share: _Share, played: Any) -> None:
        """Copy the results of a step into the arrays."""
        arrays = self.arrays.of(share.numbers)
        if not isinstance(played, Played):  # the states of games that began again
            arrays.states[...] = played
            return
        games = [game for game, action in enumerate(share.part_of(self._actions)) if action is not None]
        arrays.rewards[games], arrays.ends[games] = played.rewards, played.ends
        for place, game in enumerate(games):
            arrays.screens[game] = played.screens[place]
            if place in played.states:
                arrays.states[game] = played.states[place]
            else:
                StateBuffer(arrays.states[game]).add(played.screens[place])

    # Messages

    def _ask(self, *message: Any) -> list[Any]:
        """Send a message to all players. Return the answers."""
        for share in self._shares:
            self._send(share, *message)
        return self._answers(self._shares)

    def _send(self, share: _Share, *message: Any) -> None:
        share.message = message
        if message[0] in ("begin", "play"):
            share.since.append(message)
        share.answer = share.player.ask(message, self._num_bytes(share))

    def _answers(self, shares: Sequence[_Share]) -> list[Any]:
        """Wait for the answers of these shares. Replace the players that are lost."""
        answers: dict[_Share, Any] = {}
        while waiting := [share for share in shares if share not in answers]:
            lost = []
            for share in waiting:
                try:
                    answers[share] = share.player.get(share.answer)
                except PlayerLost as error:
                    share.cause = last_line(str(error), "unknown cause")
                    lost.append(share)
                    continue
                if share.lost_at:
                    seconds, share.lost_at = time.monotonic() - share.lost_at, 0
                    logger.info("Restored %s in %.1f s, on %s", share, seconds, share.machine)
            if lost:
                self._replace(lost)
        return [answers[share] for share in shares]

    def _num_bytes(self, share: _Share) -> int:
        """Size of the answer to a step in which few games end; 0 for other messages."""
        return self.arrays.screens[: len(share.numbers)].nbytes + 500 if share.message[0] == "play" else 0

    # Players

    def _replace(self, lost: Sequence[_Share]) -> None:
        """Let other players bring these shares to where they were."""
        for share in lost:
            share.deaths += 1
            if share.deaths == _MOST_DEATHS:
                raise GameError(
                    f"The process that plays {share} died {_MOST_DEATHS} times in sequence"
                    f"{share.machine and ', at last on '}{share.machine}: {share.cause}"
                )
            share.lost_at = share.lost_at or time.monotonic()
            share.player.close()
            if self._mode and not share.can_be_restored:
                logger.info(
                    "Lost %s, on %s. This environment cannot restore its state: new games begin", share, share.machine
                )
                self._begin_again(share, self._mode)
            else:
                steps = count(sum(message[0] == "play" for message in share.since), "step")
                logger.info("Lost %s, on %s. To play again: the last %s", share, share.machine, steps)
        self._place(lost)

    def _begin_again(self, share: _Share, mode: Mode) -> None:
        """Let new games begin, because the environment cannot restore its state. `finish` lets the agent know."""
        for number in share.numbers:
            self._seeds[number] = self._seeds[number].spawn(1)[0]  # or else the first games would come again
        begin = ("begin", mode, True)
        if share.message in share.since[-1:]:
            share.message = begin
        share.base, share.since = None, [begin]
        self._began_again.update(share.numbers)

    def _place(self, shares: Sequence[_Share]) -> None:
        """Start players for these shares, bring their games to where they were, and send the last message again."""
        spec = replace(self._spec, seeds=self._seeds)
        made = []
        for share in shares:
            share.player = self._machines.start_player()
            made.append(share.player.ask(("make", spec, share.numbers)))
        deadline = time.monotonic() + _PATIENCE
        for share, reference in zip(shares, made, strict=True):
            share.answer = reference
            if not share.player.wait(reference, max(0.0, deadline - time.monotonic())):
                logger.info("No core of the cluster is free for %s. This process plays until one is", share)
                share.player.close()
                share.player = PlayerHere()
                share.answer = share.player.ask(("make", spec, share.numbers))
                self._next_look = 0
            try:
                facts: Facts = share.player.get(share.answer)
            except PlayerLost:  # `_answers` will see it too
                continue
            require_same_versions(facts)
            share.machine = facts.machine
            self.num_actions, self.action_names = facts.num_actions, facts.action_names
            if share.base is not None and share.message[0] != "restore":
                share.player.ask(("restore", share.base))
            if share.since:
                share.answer = share.player.ask(("again", share.since), self._num_bytes(share))
            if share.message not in share.since[-1:]:
                share.answer = share.player.ask(share.message)

    def _spread(self, states: Sequence[dict[str, Any]] | None) -> None:
        """Spread the games over the free cores: new ones, or those with these `states`."""
        cores, n = max(1, self._usable_cores()), len(self)
        for share in self._shares:
            share.player.close()
        self._shares = [_Share(range(n * i // cores, n * (i + 1) // cores)) for i in range(cores)]
        for share in self._shares:
            share.base = states and share.part_of(states)
            share.message = ("restore", share.base) if states else ("state",)
        self._place(self._shares)
        answers = self._answers(self._shares)
        if not states:
            for share, its_states in zip(self._shares, answers, strict=True):
                share.base = its_states
        # A cluster that seems to have a core, but never gives it, must not spread the games again and again.
        some_here = any(share.is_here for share in self._shares)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE) if some_here else _SECONDS_PER_LOOK
        self._next_look = time.monotonic() + self._pause
        machines = Counter(share.machine for share in self._shares for _ in share.numbers)
        text = ", ".join(f"{number} on {machine}" for machine, number in machines.items())
        logger.info("%s on %s of the cluster: %s", count(n, "game"), count(cores, "core"), text)

    def _spread_if_better(self) -> None:
        """Spread the games again if machines have joined, or if some games are played here and need not."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _SECONDS_PER_LOOK
        cores, n = self._usable_cores(), len(self)
        if not cores or not all(share.can_be_restored for share in self._shares):
            return
        if any(share.is_here for share in self._shares) or -(-n // cores) < -(-n // len(self._shares)):
            states = self.state()
            if all(state["environment"] is not None for state in states):
                self._spread(states)

    def _usable_cores(self) -> int:
        """Number of cores that play games or could, at most one for each game."""
        held = sum(not share.is_here for share in self._shares)
        return min(len(self), held + self._machines.free_cores(), self._most_cores or len(self))
