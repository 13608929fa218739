"""Watches games for the states that activate each filter most, and writes the filter page."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nvis.film import Film, Moment, explain, film_section, packed
from nvis.page import ExplainedPeak, Header, Section, page
from simple_dqn.agent import Agent, Callback, Step
from simple_dqn.environment import Environment, EnvironmentOptions
from simple_dqn.learning.guided import activations, guided_backprop, read_network, receptive_field
from simple_dqn.options import Options, option
from simple_dqn.saving.files import replace_file
from simple_dqn.saving.snapshot import Layer
from simple_dqn.watching.watcher import Watcher

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
    moment: Moment


class Visualization(Watcher, Callback):
    """Examines all states of the games in batches, and writes the page at the end.

    Only the state that activates a filter most is kept, so that games may have any length. It is a watcher,
    because only watchers receive frames in colour.

    Args:
        options: the number of filters, and the page's file.
        env_options: they name the game.
        weights: the snapshot with the weights; None: they are random.
    """

    def __init__(self, options: VisualizationOptions, env_options: EnvironmentOptions, weights: Path | None) -> None:
        self._options = options
        game, atari = env_options.game, env_options.environment == "ale"
        self._game = Path(game).stem if atari else game
        self._frames_per_step = env_options.frame_skip if atari else 1
        self._snapshot = str(weights) if weights else "none, the weights are random"
        self._batch: list[Moment] = []  # moments whose states are still to be examined
        self._film = Film()
        self._scores: list[float] = []  # of the finished games
        self._score, self._step = 0.0, 0  # of the current game

    def meet(self, environment: Environment) -> None:
        self._environment = environment

    def attach(self, agent: Agent, layers: Sequence[Layer]) -> None:
        """Receive the agent, and the layers of its network in the form that snapshots have."""
        self._agent = agent
        self._network = read_network(layers)
        options = self._options
        counts = [min(options.visualization_filters, len(layer.weights)) for layer in self._network.convolutions]
        self._peaks: list[list[_Peak | None]] = [[None] * count for count in counts]
        # 64 states of 84x84: larger batches are not faster, and the windows of the first layer already take 26 MB.
        self._batch_size = max(1, min(64, 2**21 // agent.state.size))

    def on_begin(self) -> None:
        self._look()

    def on_step(self, step: Step) -> None:
        self._step += 1
        state, picture = self._seen
        q_values = self._agent.q_values  # not those of `network`, whose rounding may prefer another action
        if q_values is None:  # the action was random
            q_values = self._agent.network.predict(state[None])[0]
        moment = Moment(len(self._scores) + 1, self._step, self._score, step.action, q_values, state, picture)
        self._film.add(moment)
        self._batch.append(moment)
        if len(self._batch) == self._batch_size:
            self._find_peaks()
        self._score += step.reward
        if step.terminal:
            self._scores.append(self._score)
        if step.terminal or step.truncated:  # an abandoned game does not count
            self._score, self._step = 0.0, 0
        self._look()

    def on_phase_end(self) -> None:
        self._find_peaks()
        path = Path(self._options.visualization_file or "")
        header = Header(self._game, self._snapshot, self._scores, self._score if self._step else None)
        sections = [self._section(layer) for layer in range(len(self._network.convolutions))]
        scenes = explain(self._network, self._film.moments)
        environment = self._environment
        steps_per_second = environment.frames_per_second / self._frames_per_step
        film = film_section(scenes, environment.action_names, self._film, steps_per_second, environment.pixel_width)
        replace_file(path, page(header, sections, film).encode("utf-8", "replace"))
        logger.info("The filters are in %s", path)

    def _look(self) -> None:
        """Keep what the agent sees, and what a watcher sees."""
        self._seen = self._agent.state.copy(), packed(self._environment.picture())

    def _find_peaks(self) -> None:
        """Examine the states of the batch, and begin another batch."""
        if not self._batch:
            return
        outputs = activations(self._network.convolutions, np.stack([moment.state for moment in self._batch]))
        for peaks, layer in zip(self._peaks, outputs, strict=True):
            highest = layer[:, : len(peaks)].max(axis=(2, 3))  # (states, filters)
            for i, best in enumerate(highest.argmax(axis=0)):
                before, activation = peaks[i], float(highest[best, i])
                if activation > (before.activation if before else 0):
                    peaks[i] = _Peak(activation, self._batch[best])
        self._batch.clear()

    def _section(self, index: int) -> Section:
        layer = self._network.convolutions[index]
        filters, channels, height, width = layer.weights.shape
        peaks = [self._explained_peak(index, i) for i in range(len(self._peaks[index]))]
        field = receptive_field(self._network, index, 0, 0)
        return Section(
            index + 1, layer.name, filters, channels, (height, width), layer.stride, (field.height, field.width), peaks
        )

    def _explained_peak(self, layer: int, filter: int) -> ExplainedPeak | None:
        peak = self._peaks[layer][filter]
        if not peak:
            return None
        game, step, _, action, _, state, _ = peak.moment
        guided = guided_backprop(self._network, state[None], layer, filter)
        row, column = map(int, guided.positions[0])
        box = receptive_field(self._network, layer, row, column)
        name = self._agent.games.action_names[action]
        return ExplainedPeak(peak.activation, game, step, name, box, guided.pixels[0], state)
