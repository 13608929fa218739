"""The filter page: guided back-propagation by hand and against slow code, the states found in a game, the HTML."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fakes import FakeEnvironment, FakeNetwork, side_by_side
from nvis.film import Film, Moment, Scene, explain, film_section
from nvis.page import ExplainedPeak, Header, Section, page
from nvis.visualization import Visualization, VisualizationOptions
from simple_dqn.agent import Agent, AgentOptions, Callback, Step
from simple_dqn.deepqnetwork import BackendOptions, DeepQNetwork, DeepQNetworkOptions
from simple_dqn.environment import Screen
from simple_dqn.errors import SnapshotError
from simple_dqn.learning.guided import (
    Box,
    Convolution,
    Network,
    activations,
    guided_backprop,
    guided_q_value,
    read_network,
    receptive_field,
    saliency,
)
from simple_dqn.replay_memory import Minibatch, ReplayMemory, ReplayMemoryOptions
from simple_dqn.saving.snapshot import Layer

Doubles = NDArray[np.float64]


def conv(weights: Any, stride: int = 1) -> Layer:
    """A layer as a snapshot has it, of weights (filters, channels, height, width)."""
    weights = np.asarray(weights, np.float32)
    filters, _, height, width = weights.shape
    neon = np.ascontiguousarray(weights.transpose(1, 2, 3, 0)).reshape(-1, filters)
    return Layer("Convolution", {"fshape": (height, width, filters), "strides": stride}, {"W": neon}, [])


def linear(weights: Any) -> Layer:
    """A fully connected layer as a snapshot has it, of weights (outputs, inputs)."""
    return Layer("Linear", {"nout": len(weights)}, {"W": np.asarray(weights, np.float32)}, [])


def norm(rng: np.random.Generator, n: int) -> Layer:
    params = {key: rng.normal(size=(n, 1)).astype(np.float32) for key in ("beta", "gamma", "gmean")}
    return Layer("BatchNorm", {}, params | {"gvar": rng.random((n, 1)).astype(np.float32)}, [])


def random_layers(rng: np.random.Generator, batch_norm: bool) -> list[Layer]:
    """Three layers of windows that are no squares; neither stride divides its input."""
    layers = []
    for shape, stride in (((5, 2, 4, 3), 3), ((6, 5, 2, 3), 2), ((4, 6, 2, 1), 1)):
        layers.append(conv(rng.normal(size=shape), stride))
        layers += [norm(rng, shape[0])] if batch_norm else []
    layers += [linear(rng.normal(size=(7, 8))), *([norm(rng, 7)] if batch_norm else [])]
    return [*layers, linear(rng.normal(size=(3, 7)))]


def random_states(rng: np.random.Generator, *shape: int) -> NDArray[np.uint8]:
    return rng.integers(256, size=shape, dtype=np.uint8)


# Guided back-propagation


def test_two_layers_by_hand() -> None:
    """What the plain gradient would let pass and the guided one does not is in both channels.

    a(r, c) = x(r, c) + 2·x(r, c+1) is [[1, 2], [2, 1]], b(r, c) = x(r+1, c) − x(r+1, c+1) is [[-1, 1], [0, 1]], and so
    the unit is 1·1 − 1·2 + 0·2 + 3·1 + 2·1 − 1·1 = 3. The gradient at a is [[1, -1], [0, 3]]: the −1 is stopped. At b
    it is [[5, 2], [1, -1]]: 5 and 1 are stopped because b is not active there, −1 because it is negative.
    """
    layers = [
        conv([[[[1, 2], [0, 0]]], [[[0, 0], [1, -1]]]]),
        conv([[[[1, -1], [0, 3]], [[5, 2], [1, -1]]]]),
    ]
    state = np.array([[[255, 0, 255], [0, 255, 0], [255, 255, 0]]], np.uint8)
    network = read_network(layers)
    (a, b), (unit,) = (layer[0] for layer in activations(network.convolutions, state[None]))
    assert (a.tolist(), b.tolist(), unit.tolist()) == ([[1, 2], [2, 1]], [[0, 1], [0, 1]], [[3]])
    guided = guided_backprop(network, state[None], layer=1, filter=0)
    assert (guided.activations.tolist(), guided.positions.tolist()) == ([3], [[0, 0]])
    assert guided.pixels[0, 0].tolist() == [[1, 2, 0], [0, 3 + 2, 6 - 2], [0, 0, 0]]


def test_q_value_by_hand() -> None:
    """Two pixels, x = (1, 0.2). A filter passes them on, the hidden units are 2·x1 + x2 = 2.2, x1 − 3·x2 = 0.4 and
    −x1, which does not fire.

    The Q-value of action 0, 1·2.2 + 2·0.4 + 9·0 = 3, sends 1 and 2 back to the first two, and so 2 + 2 and 1 − 6 to the
    pixels, where the filter's rectifier stops the −5. That of action 1, −1·2.2 + 0.5·0.4 = −2, sends 0.5 to the second
    alone, as −1 is stopped.
    """
    network = read_network([conv([[[[1]]]]), linear([[2, 1], [1, -3], [-1, 0]]), linear([[1, 2, 9], [-1, 0.5, 0]])])
    states = np.array([[[[255, 51]]]] * 2, np.uint8)
    found = guided_q_value(network, states, np.array([0, 1]))
    np.testing.assert_allclose(found.q_values, np.array([[3, -2], [3, -2]]), rtol=1e-5)
    np.testing.assert_allclose(found.pixels[:, 0, 0], np.array([[4, 0], [0.5, 0]]), rtol=1e-5)


def test_saliency_is_the_share_of_the_largest_amount() -> None:
    pixels = np.zeros((3, 2, 1, 3), np.float32)
    pixels[0, :, 0] = [[1, -4, 0], [-2, 1, 0]]
    pixels[2, 0, 0] = [np.nan, np.inf, 3]
    assert saliency(pixels)[:, 0].tolist() == [[0.5, 1, 0], [0, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([norm(np.random.default_rng(0), 1), conv([[[[1]]]]), linear([[1]])], "cannot explain a BatchNorm"),
        ([conv([[[[1]]]]), linear([[1]]), conv([[[[1]]]])], "cannot explain a Convolution"),
        ([conv([[[[1]]]]), Layer("Noisy", {}, {"W": np.ones((1, 1)), "b": np.ones(1)}, [])], "a Noisy with W, b"),
        ([linear([[1]]), linear([[1]])], "this network has none"),
    ],
)
def test_network_that_cannot_be_explained(layers: Sequence[Layer], message: str) -> None:
    with pytest.raises(SnapshotError, match=message):
        read_network(layers)


def test_filter_that_does_not_fire() -> None:
    network = read_network([conv([[[[-1.0]]]])])
    guided = guided_backprop(network, np.full((1, 1, 2, 2), 9, np.uint8), 0, 0)
    assert guided.activations == 0
    assert not guided.pixels.any()


def naive_outputs(network: Network, state: NDArray[np.uint8]) -> list[Doubles]:
    """The state and what leaves each convolutional layer, one unit and one weight at a time."""
    outputs: list[Doubles] = [state / 255]
    for convolution in network.convolutions:
        outputs.append(np.zeros([len(convolution.weights), *sizes(convolution, outputs[-1])]))
        for k, r, c in np.ndindex(outputs[-1].shape):
            total = 0.0
            for (i, j, m), weight in np.ndenumerate(convolution.weights[k]):
                total += float(weight) * outputs[-2][i, r * convolution.stride + j, c * convolution.stride + m]
            outputs[-1][k, r, c] = max(0.0, total * convolution.scale[k, 0, 0] + convolution.shift[k, 0, 0])
    return outputs


def naive_pixels(network: Network, outputs: Sequence[Doubles], gradient: Doubles) -> Doubles:
    """The gradient with respect to the state, from that of the last of these outputs."""
    for n in range(len(outputs) - 2, -1, -1):
        convolution, below = network.convolutions[n], np.zeros(outputs[n].shape)
        for k, r, c in np.ndindex(gradient.shape):
            if gradient[k, r, c] > 0 and outputs[n + 1][k, r, c] > 0:
                for (i, j, m), weight in np.ndenumerate(convolution.weights[k]):
                    to = i, r * convolution.stride + j, c * convolution.stride + m
                    below[to] += gradient[k, r, c] * convolution.scale[k, 0, 0] * weight
        gradient = below
    return gradient


def naive(network: Network, state: NDArray[np.uint8], layer: int, filter: int) -> tuple[float, Doubles]:
    """The most active unit's activation, and its gradient."""
    outputs = naive_outputs(network, state)[: layer + 2]
    units = outputs[-1][filter]
    gradient = np.zeros(outputs[-1].shape)
    gradient[filter][np.unravel_index(units.argmax(), units.shape)] = 1
    return float(units.max()), naive_pixels(network, outputs, gradient)


def naive_q_value(network: Network, state: NDArray[np.uint8], action: int) -> tuple[list[float], Doubles]:
    """The Q-values, and the gradient of one of them; of a network with one hidden layer."""
    outputs = naive_outputs(network, state)
    inputs, (hidden, last) = outputs[-1].ravel(), network.dense
    gradient = np.zeros(len(inputs))
    q_values = [0.0] * len(last.weights)
    for i, row in enumerate(hidden.weights):
        total = sum(float(weight) * x for weight, x in zip(row, inputs, strict=True))
        unit = max(0.0, total * hidden.scale[i] + hidden.shift[i])
        for a in range(len(q_values)):
            q_values[a] += unit * float(last.weights[a, i])
        if unit > 0 and last.weights[action, i] > 0:
            gradient += float(last.weights[action, i]) * hidden.scale[i] * row
    return q_values, naive_pixels(network, outputs, gradient.reshape(outputs[-1].shape))


def sizes(convolution: Convolution, below: Doubles) -> list[int]:
    return [
        (n - k) // convolution.stride + 1 for n, k in zip(below.shape[1:], convolution.weights.shape[2:], strict=True)
    ]


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_against_slow_code(layer: int, batch_norm: bool) -> None:
    rng = np.random.default_rng(3)
    network = read_network(random_layers(rng, batch_norm))
    states = random_states(rng, 3, 2, 17, 18)
    for filter in range(len(network.convolutions[layer].weights)):
        guided = guided_backprop(network, states, layer, filter)
        for i, state in enumerate(states):
            activation, pixels = naive(network, state, layer, filter)
            assert guided.activations[i] == pytest.approx(activation, rel=1e-4)
            np.testing.assert_allclose(guided.pixels[i], pixels, rtol=1e-4, atol=1e-4)
            box = receptive_field(network, layer, *map(int, guided.positions[i]))
            outside = guided.pixels[i].copy()
            outside[:, box.top : box.top + box.height, box.left : box.left + box.width] = 0
            assert not outside.any()


@pytest.mark.parametrize("batch_norm", [False, True])
def test_q_values_against_slow_code(batch_norm: bool) -> None:
    rng = np.random.default_rng(6)
    network = read_network(random_layers(rng, batch_norm))
    states, actions = random_states(rng, 5, 2, 17, 18), np.array([0, 1, 2, 0, 1])
    found = guided_q_value(network, states, actions)
    assert np.count_nonzero(np.abs(found.pixels).max(axis=(1, 2, 3)) > 0.01) >= 4
    for i, (state, action) in enumerate(zip(states, actions, strict=True)):
        q_values, pixels = naive_q_value(network, state, int(action))
        np.testing.assert_allclose(found.q_values[i], q_values, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found.pixels[i], pixels, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_against_captum(batch_norm: bool) -> None:
    attr = pytest.importorskip("captum.attr", reason="Captum, which does the same with torch, is not installed")
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    network = read_network(random_layers(rng, batch_norm))
    states = random_states(rng, 4, 2, 17, 18)
    modules: list[Any] = []
    for convolution in network.convolutions:
        layer = torch.nn.Conv2d(
            convolution.weights.shape[1], len(convolution.weights), convolution.weights.shape[2:], convolution.stride
        )
        layer.weight.data = torch.from_numpy(convolution.weights * convolution.scale[..., None])
        layer.bias.data = torch.from_numpy(convolution.shift.ravel())
        modules += [layer, torch.nn.ReLU()]
    for filter in range(4):
        guided = guided_backprop(network, states, 2, filter)
        for i in np.flatnonzero(guided.activations > 0):
            x = torch.from_numpy(states[i : i + 1] / np.float32(255)).requires_grad_()
            target = (filter, *map(int, guided.positions[i]))
            with pytest.warns(UserWarning, match="hooks"):
                expected = attr.GuidedBackprop(torch.nn.Sequential(*modules)).attribute(x, target=target)
            np.testing.assert_allclose(guided.pixels[i], expected[0].detach().numpy(), rtol=1e-4, atol=1e-4)
    modules.append(torch.nn.Flatten())
    for dense, rectifier in zip(network.dense, ([torch.nn.ReLU()], []), strict=True):
        layer = torch.nn.Linear(*dense.weights.shape[::-1])
        layer.weight.data = torch.from_numpy(dense.weights * dense.scale[:, None])
        layer.bias.data = torch.from_numpy(dense.shift)
        modules += [layer, *rectifier]
    actions = np.array([0, 1, 2, 0])
    x = torch.from_numpy(states / np.float32(255)).requires_grad_()
    with pytest.warns(UserWarning, match="hooks"):
        expected = attr.GuidedBackprop(torch.nn.Sequential(*modules)).attribute(x, target=torch.from_numpy(actions))
    found = guided_q_value(network, states, actions)
    np.testing.assert_allclose(found.pixels, expected.detach().numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_is_the_network_that_plays(batch_norm: bool) -> None:
    """The Q-values are those of the network that the layers are from."""
    rng = np.random.default_rng(5)
    backend = BackendOptions(backend="cpu")
    q_network = DeepQNetwork(3, (2, 38, 41), DeepQNetworkOptions(batch_norm=batch_norm), backend, seed=1)
    states = random_states(rng, 8, 2, 38, 41)
    zeros, ones = np.zeros(8, np.uint8), np.ones(8, np.float32)
    for _ in range(3):  # moves the running averages of batch norm
        steps = np.ones(8, np.int64)
        q_network.train(Minibatch(states, zeros, ones[:, None], states, zeros > 0, np.arange(8), ones, steps))
    layers = q_network.layers()
    network = read_network(layers)
    step = 3 if batch_norm else 2
    assert [layer.name for layer in network.convolutions] == [f"{i * step:04d}" for i in range(3)]
    found = guided_q_value(network, states, np.zeros(8, np.intp))
    np.testing.assert_allclose(found.q_values, q_network.predict(states), rtol=1e-3, atol=1e-4)


def test_receptive_fields_of_the_network() -> None:
    network = read_network([conv(np.zeros((1, 1, k, k)), stride) for k, stride in ((8, 4), (4, 2), (3, 1))])
    assert receptive_field(network, 0, 19, 0) == Box(76, 0, 8, 8)
    assert receptive_field(network, 1, 8, 1) == Box(64, 8, 20, 20)
    assert receptive_field(network, 2, 6, 0) == Box(48, 0, 36, 36)


# Watching a game


class NoiseEnvironment(FakeEnvironment):
    """A fake environment in which each screen is different."""

    def screen(self) -> Screen:
        return random_states(np.random.default_rng(self.frame), 4, 5)


class Witness(FakeNetwork):
    """Keeps the states that `predict` receives: without exploration these are all states."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[NDArray[np.uint8]] = []

    def predict(self, states: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.states.append(states[0].copy())
        return np.eye(3, dtype=np.float32)[[len(self.states) % 3]]


def watched(path: Path, layers: Sequence[Layer], filters: int, episode: int = 90) -> tuple[Visualization, Agent]:
    rng = np.random.default_rng(1)
    memory = ReplayMemory(ReplayMemoryOptions(replay_size=100, history_length=3), (4, 5), 4, rng)
    games = side_by_side([NoiseEnvironment(episode)], 3, (4, 5), 3, rng)
    agent = Agent(games, memory, Witness(), AgentOptions(exploration_rate_test=0, random_starts=3), rng)
    options = VisualizationOptions(visualization_filters=filters, visualization_file=str(path))
    top = activations(read_network(layers).convolutions, np.zeros((1, 3, 4, 5), np.uint8))[-1]
    whole = [*layers, linear(rng.normal(size=(3, top.size)))]
    visualization = Visualization(agent, whole, options, "noise", "snapshots/noise_1.pkl")
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
            assert (peak.game, peak.step, peak.action) == (best // length + 1, best % length + 1, (best + 1) % 3)
            assert (peak.state == agent.network.states[best]).all()
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


def test_an_abandoned_game_does_not_count(tmp_path: Path) -> None:
    visualization, agent = watched(tmp_path / "noise.html", [conv(np.ones((2, 3, 2, 2)))], filters=1, episode=6)
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
    agent.play(1)
    visualization.on_phase_end()
    assert [peak is None for peak in visualization._peaks[0]] == [True, True, False]
    text = (tmp_path / "noise.html").read_text()
    assert text.count("It was never active") == 2
    assert film_data(text)["moments"][0][4] == [None] * 3
    assert "3 filters of 2×2 with stride 1, on 3 channels; 2 of these were never active." in text


class Interrupt(Callback):
    def __init__(self, agent: Agent) -> None:
        self.agent = agent

    def on_step(self, step: Step) -> None:
        self.agent.interrupted = True


def test_interrupted_game(tmp_path: Path) -> None:
    visualization, agent = watched(tmp_path / "noise.html", [conv(np.ones((1, 3, 2, 2)))], filters=1)
    visualization.on_phase_end()
    assert "none: no step was played" in (tmp_path / "noise.html").read_text()
    agent.callbacks = [visualization, Interrupt(agent)]
    agent.play(1)
    visualization.on_phase_end()
    assert "<dt>Score</dt><dd>1 when it was interrupted</dd>" in (tmp_path / "noise.html").read_text()


# The page


class Page(HTMLParser):
    """Parses a page and checks that each element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def make_page(state: NDArray[np.uint8], pixels: NDArray[np.float32], snapshot: str = "snapshots/pong_1.pkl") -> str:
    peak = ExplainedPeak(1.5, 1, 42, "LEFTFIRE", Box(1, 2, 3, 2), pixels, state)
    header = Header("pong", snapshot, [-21.0], None)
    sections = [Section("0000", 32, 4, (8, 8), 4, [peak, None]), Section("0002", 1, 32, (4, 4), 2, [None])]
    return page(header, sections, film_section(film_scenes(2), 4, ["NOOP", "<FIRE>"]))


def film_scenes(n: int, height: int = 5, width: int = 6, q: Sequence[float] = (0.5, -1.25)) -> list[Scene]:
    """n scenes. The screens of scene i are filled with 10·i. One pixel is salient, a different one in each scene."""
    found = []
    for i in range(n):
        state = np.full((4, height, width), 10 * i % 256, np.uint8)
        heat = np.zeros((height, width), np.float32)
        heat[i % height, i % width] = 1
        found.append(Scene(Moment(1, 4 * i + 1, -i, i % len(q), state), np.array(q, np.float32), heat))
    return found


def pictures(text: str, kind: str = "png") -> list[NDArray[np.uint8]]:
    """The pictures of a type, (height, width, 3)."""
    found = []
    for image in Page(text).all("img"):
        start, data = (image["src"] or "").split(",")
        if start == f"data:image/{kind};base64":
            picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
            assert picture is not None
            found.append(picture[..., ::-1].astype(np.uint8))
    return found


def test_page_is_complete_and_needs_no_other_file() -> None:
    text = make_page(np.zeros((4, 5, 6), np.uint8), np.zeros((4, 5, 6), np.float32), snapshot="<b>\"&'.pkl")
    assert "&lt;b&gt;&quot;&amp;&#x27;.pkl" in text
    tree = Page(text)
    assert not re.search(r"https?:|//[a-z]|url\(|@import", re.sub(r'src="data:[^"]*"', "", text))
    linking = [name for name, attributes in tree.tags if {"src", "href"} & set(attributes)]
    assert linking == ["a", "a", "a", "img", "img", "img", "img"]
    ids = [attributes["id"] for _, attributes in tree.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in tree.tags:
        assert attributes.get("aria-labelledby") in (None, *ids)
        assert (attributes.get("href") or "#keys")[1:] in ids
    headings = [int(tag[1]) for tag, _ in tree.tags if re.fullmatch("h[1-6]", tag)]
    assert headings == [1, 2, 3, 3, 2, 3, 2]
    assert all(image["alt"] for image in tree.all("img"))
    assert [pair["tabindex"] for pair in tree.all("div") if pair.get("role") == "group"] == ["0", "0"]
    for fact in ("1.5", "step 42", "LEFTFIRE", "columns 2–3, rows 1–3", "-21"):
        assert f"<dd>{fact}</dd>" in text
    assert "left:33.33%;top:20%;width:33.33%;height:60%" in text


def test_pictures_show_the_last_three_screens() -> None:
    state = np.arange(4, dtype=np.uint8)[:, None, None] * 10 + np.zeros((4, 5, 6), np.uint8)
    pixels = np.zeros((4, 5, 6), np.float32)
    pixels[0, 0, 0] = 100  # the oldest screen is not shown, and does not count
    pixels[1, 1, 2], pixels[2, 3, 4], pixels[3, 3, 4] = -0.5, 0.25, 0.125
    guided, seen = pictures(make_page(state, pixels))
    assert (seen == [10, 20, 30]).all()
    assert guided[1, 2].tolist() == [1, 128, 128]
    assert guided[3, 4].tolist() == [128, 192, 160]
    assert guided[0, 0].tolist() == [128, 128, 128]


@pytest.mark.parametrize(("history", "colours"), [(1, [7, 7, 7]), (2, [7, 7, 8]), (3, [7, 8, 9])])
def test_short_histories(history: int, colours: list[int]) -> None:
    state = np.arange(7, 7 + history, dtype=np.uint8)[:, None, None] + np.zeros((history, 5, 6), np.uint8)
    guided, seen = pictures(make_page(state, np.full(state.shape, np.nan, np.float32)))
    assert (seen == colours).all()
    assert (guided == 128).all()


# The film


def moment(i: int, state: NDArray[np.uint8]) -> Moment:
    return Moment(1, i + 1, 0.0, 0, state)


@pytest.mark.parametrize(("steps", "every", "kept"), [(1, 1, 1), (300, 1, 300), (301, 2, 151), (5000, 32, 157)])
def test_film_keeps_moments_at_equal_distances(steps: int, every: int, kept: int) -> None:
    film, state = Film(), np.zeros((1, 2, 2), np.uint8)
    for i in range(steps):
        film.add(moment(i, state))
    assert [m.step for m in film.moments] == list(range(1, steps + 1, every))
    assert (film.every, len(film.moments)) == (every, kept)


def test_film_of_large_screens_keeps_fewer() -> None:
    film, state = Film(), np.zeros((4, 1500, 1500), np.uint8)
    for i in range(100):
        film.add(moment(i, state))
    assert 3 <= len(film.moments) <= 7


def test_scenes_explain_the_action_taken() -> None:
    """One and a half chunks of moments give the same as each moment alone."""
    rng = np.random.default_rng(8)
    network = read_network(random_layers(rng, batch_norm=False))
    found = explain(network, [Moment(1, i, 0.0, i % 3, random_states(rng, 2, 17, 18)) for i in range(7)])
    assert explain(network, []) == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nvis.film._CHUNK", 4 * 2 * 17 * 18)
        again = explain(network, [scene.moment for scene in found])
    for scene, same in zip(found, again, strict=True):
        guided = guided_q_value(network, scene.moment.state[None], np.array([scene.moment.action]))
        for one in (scene, same):
            np.testing.assert_allclose(one.q_values, guided.q_values[0], rtol=1e-5)
            np.testing.assert_allclose(one.saliency, saliency(guided.pixels)[0], atol=1e-5)


def test_scores_on_the_page_are_exact() -> None:
    text = page(Header("pong", "none", [1234567.0, -37037.0367], 0.1 + 0.2), [], "")
    assert "1234567, -37037.0367, 0.3 when it was interrupted" in text
    (scene,) = film_scenes(1)
    exact = scene._replace(moment=scene.moment._replace(score=1234567.25))
    assert film_data(film_section([exact], 1, ["NOOP", "FIRE"]))["moments"][0][2] == 1234567.25


def film_data(text: str) -> dict[str, Any]:
    (found,) = re.findall('<script type="application/json" id="moments">(.*)</script>', text)
    return dict(json.loads(found))


def test_film_has_every_screen_and_its_saliency() -> None:
    text = film_section(film_scenes(25), 4, ["NOOP", "</script>"])
    Page(text)
    data = film_data(text)
    assert data["actions"] == ["NOOP", "</script>"]
    assert data["moments"][2] == [1, 9, -2, 0, [0.5, -1.25]]
    assert len(data["moments"]) == 25
    assert 'max="24"' in text
    assert "Every 4th step" in text
    screens, heat = (sheet[..., 0] for sheet in pictures(text, "webp"))
    assert screens.shape == heat.shape == (2 * 5, 20 * 6)
    for i in range(25):
        row, column = i // 20 * 5, i % 20 * 6
        assert (screens[row : row + 5, column : column + 6] == 10 * i % 256).all()
        tile = heat[row : row + 5, column : column + 6]
        assert tile[i % 5, i % 6] == tile.max() > 128


def test_film_of_large_screens_is_shrunk() -> None:
    text = film_section(film_scenes(3, 210, 160), 1, ["NOOP", "FIRE"])
    assert "--shape:160/210" in text
    assert (film_data(text)["width"], film_data(text)["height"]) == (128, 168)
    assert [sheet.shape[:2] for sheet in pictures(text, "webp")] == [(168, 20 * 128)] * 2


def test_film_of_a_network_that_diverged() -> None:
    text = film_section(film_scenes(2, q=(np.nan, np.inf)), 1, ["NOOP", "FIRE"])
    assert film_data(text)["moments"][0][4] == [None, None]
    assert "<svg" not in text
    assert film_section([], 1, ["NOOP"]) == ""
