"""Watches games for the states that activate each filter most, and writes the filter page."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nvis.film import Film, Moment, explain, film_section
from nvis.page import ExplainedPeak, Header, Section, page
from simple_dqn.agent import Agent, Callback, Step
from simple_dqn.learning.guided import activations, guided_backprop, read_network, receptive_field
from simple_dqn.options import Options, option
from simple_dqn.saving.files import write_whole
from simple_dqn.saving.snapshot import Layer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VisualizationOptions(Options):
    title = "Visualization"
    visualization_filters: int = option(
        4, "filters per convolutional layer on the page", at_least=1, at_most=10**6, kept="never"
    )
    visualization_file: str | None = option(
        None,
        "HTML page of the games of --play_games: what activates the filters, what influenced each action",
        kept="never",
    )


class _Peak(NamedTuple):
    """The state in which a filter was most active so far."""

    activation: float
    game: int  # counted from 1
    step: int  # of the current game, from 1
    action: int
    state: NDArray[np.uint8]  # (history, height, width)


class Visualization(Callback):
    """Examines all states of the games in batches, and writes the page at the end.

    Only the state that activates a filter most is kept, so that games may have any length.

    Args:
        agent: the agent that plays.
        layers: the layers of its network, in the form that snapshots have.
        options: the number of filters, and the page's file.
        game: name of the game.
        snapshot: name of the snapshot with the weights.
    """

    def __init__(
        self, agent: Agent, layers: Sequence[Layer], options: VisualizationOptions, game: str, snapshot: str
    ) -> None:
        self._agent = agent
        self._network = read_network(layers)
        self._options = options
        self._game, self._snapshot = game, snapshot
        counts = [min(options.visualization_filters, len(layer.weights)) for layer in self._network.convolutions]
        self._peaks: list[list[_Peak | None]] = [[None] * count for count in counts]
        shape = agent.state.shape
        # 64 states of 84x84: larger batches are not faster, and the windows of the first layer already take 26 MB.
        self._states = np.empty((max(1, min(64, 2**21 // agent.state.size)), *shape), np.uint8)
        self._moments: list[tuple[int, int, int]] = []  # game, step and action of each state
        self._film = Film()
        self._scores: list[float] = []  # of the finished games
        self._score, self._step = 0.0, 0  # of the current game

    def on_begin(self) -> None:
        self._state = self._agent.state.copy()

    def on_step(self, step: Step) -> None:
        self._step += 1
        self._states[len(self._moments)] = self._state
        self._moments.append((len(self._scores) + 1, self._step, step.action))
        if len(self._moments) == len(self._states):
            self._find_peaks()
        self._film.add(Moment(len(self._scores) + 1, self._step, self._score, step.action, self._state))
        self._score += step.reward
        if step.terminal:
            self._scores.append(self._score)
        if step.terminal or step.truncated:  # an abandoned game does not count
            self._score, self._step = 0.0, 0
        self._state = self._agent.state.copy()

    def on_phase_end(self) -> None:
        self._find_peaks()
        path = Path(self._options.visualization_file or "")
        header = Header(self._game, self._snapshot, self._scores, self._score if self._step else None)
        sections = [self._section(layer) for layer in range(len(self._network.convolutions))]
        scenes = explain(self._network, self._film.moments)
        film = film_section(scenes, self._film.every, self._agent.games.action_names)
        write_whole(path, page(header, sections, film).encode("utf-8", "replace"))
        logger.info("The filters are in %s", path)

    def _find_peaks(self) -> None:
        """Find the most active of the collected states, then discard these."""
        if not self._moments:
            return
        outputs = activations(self._network.convolutions, self._states[: len(self._moments)])
        for peaks, layer in zip(self._peaks, outputs, strict=True):
            highest = layer[:, : len(peaks)].max(axis=(2, 3))  # (states, filters)
            for i, best in enumerate(highest.argmax(axis=0)):
                before, activation = peaks[i], float(highest[best, i])
                if activation > (before.activation if before else 0):
                    game, step, action = self._moments[best]
                    peaks[i] = _Peak(activation, game, step, action, self._states[best].copy())
        self._moments.clear()

    def _section(self, index: int) -> Section:
        layer = self._network.convolutions[index]
        filters, channels, height, width = layer.weights.shape
        peaks = [self._explained_peak(index, i) for i in range(len(self._peaks[index]))]
        return Section(layer.name, filters, channels, (height, width), layer.stride, peaks)

    def _explained_peak(self, layer: int, filter: int) -> ExplainedPeak | None:
        peak = self._peaks[layer][filter]
        if not peak:
            return None
        guided = guided_backprop(self._network, peak.state[None], layer, filter)
        row, column = map(int, guided.positions[0])
        box = receptive_field(self._network, layer, row, column)
        action = self._agent.games.action_names[peak.action]
        return ExplainedPeak(peak.activation, peak.game, peak.step, action, box, guided.pixels[0], peak.state)
