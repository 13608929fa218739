"""Visualization: the states that it finds in games, and the page that it writes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from numpy.typing import NDArray
from test_film import film_data, video_of

from fakes import FakeEnvironment, FakeNetwork, conv, linear, make_agent, random_states
from nvis.visualization import Visualization, VisualizationOptions
from simple_dqn.agent import Agent, Step
from simple_dqn.environment import EnvironmentOptions, Picture, Screen
from simple_dqn.learning.guided import activations, read_network
from simple_dqn.saving.snapshot import Layer


class NoiseEnvironment(FakeEnvironment):
    """A fake environment in which each screen is different. Its pictures are red."""

    def screen(self) -> Screen:
        return random_states(np.random.default_rng(self.frame), 4, 5)

    def picture(self) -> Picture:
        return np.full((8, 10, 3), (200, 0, 0), np.uint8)


class Witness(FakeNetwork):
    """Keeps the states that `predict` receives: without exploration these are all states."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[NDArray[np.uint8]] = []

    def predict(self, states: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.states.append(states[0].copy())
        return np.eye(3, dtype=np.float32)[[len(self.states) % 3]]


def watched(
    path: Path,
    layers: Sequence[Layer],
    filters: int = 1,
    episode: int = 90,
    game: str = "noise",
    environment: str = "ale",
) -> tuple[Visualization, Agent]:
    noise = NoiseEnvironment(episode)
    agent = make_agent([noise], Witness(), history=3, exploration_rate_test=0, random_starts=3)
    top = activations(read_network(layers).convolutions, np.zeros((1, 3, 4, 5), np.uint8))[-1]
    whole = [*layers, linear(np.random.default_rng(1).normal(size=(3, top.size)))]
    options = VisualizationOptions(visualization_filters=filters, visualization_file=str(path))
    env_options = EnvironmentOptions(game=game, environment=environment)
    visualization = Visualization(options, env_options, Path("snapshots/noise_1.pkl"))
    visualization.meet(noise)
    visualization.attach(agent, whole)
    agent.callbacks = [visualization]
    return visualization, agent


def test_finds_the_strongest_state_of_all_games(tmp_path: Path) -> None:
    """Each game has one and a half chunks. Every state counts, the first one of a game too."""
    rng = np.random.default_rng(2)
    layers = [conv(rng.normal(size=(5, 3, 2, 2))), conv(rng.normal(size=(6, 5, 2, 3)))]
    visualization, agent = watched(tmp_path / "noise.html", layers, filters=4)
    agent.play(2)
    visualization.on_phase_end()
    assert isinstance(agent.network, Witness)
    length = len(agent.network.states) // 2
    assert length > 64  # more than a chunk
    outputs = activations(read_network(layers).convolutions, np.stack(agent.network.states))
    for peaks, output in zip(visualization._peaks, outputs, strict=True):
        assert len(peaks) == 4
        for filter, peak in enumerate(peaks):
            heights = output[:, filter].max(axis=(1, 2))
            best = int(heights.argmax())
            assert peak is not None
            assert peak.activation == pytest.approx(heights[best], rel=1e-5)
            moment = peak.moment
            assert (moment.game, moment.step, moment.action) == (best // length + 1, best % length + 1, (best + 1) % 3)
            assert (moment.state == agent.network.states[best]).all()
    text = (tmp_path / "noise.html").read_text()
    assert len(re.findall("<h3", text)) == 8
    assert re.search(r"<dt>When</dt><dd>game [12], step \d+</dd>", text)
    moments = film_data(text)["moments"]
    assert [(game, step) for game, step, *_ in moments] == [
        (i // length + 1, i % length + 1) for i in range(2 * length)
    ]
    rewards = [(i + 1) % 3 for i in range(2 * length)]  # the fake environment's rewards
    assert [m[3] for m in moments] == rewards
    assert [m[2] for m in moments] == [sum(rewards[i // length * length : i]) for i in range(2 * length)]


@pytest.mark.parametrize("exploration_rate", [0.0, 1.0])
def test_q_values_are_those_by_which_the_agent_chose(exploration_rate: float, tmp_path: Path) -> None:
    """Those that NumPy computes from the layers round otherwise, and would prefer another action."""
    visualization, agent = watched(tmp_path / "noise.html", [conv(np.ones((1, 3, 2, 2)))])
    agent.options = dataclasses.replace(agent.options, exploration_rate_test=exploration_rate)
    agent.play(1)
    visualization.on_phase_end()
    moments = film_data((tmp_path / "noise.html").read_text())["moments"]
    assert all(sorted(q) == [0, 0, 1] for *_, q in moments)
    greedy = [action == best and q[action] == 1 for *_, action, best, q in moments]
    assert all(greedy) if exploration_rate == 0 else 0.1 < sum(greedy) / len(greedy) < 0.6


def test_an_abandoned_game_does_not_count(tmp_path: Path) -> None:
    visualization, agent = watched(tmp_path / "noise.html", [conv(np.ones((2, 3, 2, 2)))], episode=6)
    for _ in range(4):
        agent.test(1)
    visualization.on_step(Step(0, 100.0, agent.state[-1], False, True, 0.0))
    agent.play(1)
    visualization.on_phase_end()
    assert max(visualization._scores) < 100


def test_filters_that_are_never_active_and_weights_that_are_not_finite(tmp_path: Path) -> None:
    weights = np.zeros((3, 3, 2, 2))
    weights[0], weights[1], weights[2] = -1, np.nan, 3e38  # the last one overflows
    visualization, agent = watched(tmp_path / "noise.html", [conv(weights)], filters=100)
    agent.network = Mock(predict=lambda _: np.full((1, 3), np.nan))
    agent.play(1)
    visualization.on_phase_end()
    assert [peak is None for peak in visualization._peaks[0]] == [True, True, False]
    text = (tmp_path / "noise.html").read_text()
    assert text.count("It was never active") == 2
    assert film_data(text)["moments"][0][4:] == [-1, [None] * 3]
    assert "3 filters of 2×2 with stride 1, on the last 3 screens. Receptive field: 2×2 pixels of a screen." in text
    assert "Shown: all; 2 of these were never active." in text


def test_interrupted_game(tmp_path: Path) -> None:
    visualization, agent = watched(tmp_path / "noise.html", [conv(np.ones((1, 3, 2, 2)))])
    agent.callbacks = [visualization, Mock(on_step=lambda _: agent.stop())]
    agent.play(1)
    visualization.on_phase_end()
    assert "<dt>Score</dt><dd>1 when it was interrupted</dd>" in (tmp_path / "noise.html").read_text()


@pytest.mark.parametrize(("environment", "rate"), [("ale", 15), ("gym", 60)])
def test_film_has_the_colours_and_the_speed_of_the_game(tmp_path: Path, environment: str, rate: float) -> None:
    """An action lasts four frames of 60 a second in an Atari game, one in Gymnasium."""
    layers = [conv(np.ones((1, 3, 2, 2)))]
    visualization, agent = watched(tmp_path / "noise.html", layers, episode=20, environment=environment)
    agent.play(1)
    visualization.on_phase_end()
    text = (tmp_path / "noise.html").read_text()
    assert film_data(text)["rate"] == rate
    assert text.index('id="film"') < text.index("The filters")
    for picture in video_of(text):
        assert abs(picture[:16, :20].mean(axis=(0, 1)) - [200, 0, 0]).max() < 8


@pytest.mark.parametrize(
    ("environment", "game", "name"), [("ale", "roms/noise.bin", "noise"), ("gym", "ALE/Noise-v5", "ALE/Noise-v5")]
)
def test_names_game_and_weights(tmp_path: Path, environment: str, game: str, name: str) -> None:
    layers = [conv(np.ones((1, 3, 2, 2)))]
    visualization, _ = watched(tmp_path / "noise.html", layers, game=game, environment=environment)
    visualization.on_phase_end()
    facts = re.findall("<dd>(.*?)</dd>", (tmp_path / "noise.html").read_text())
    assert facts == [name, "snapshots/noise_1.pkl", "none: no step was played"]
