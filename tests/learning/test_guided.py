"""Guided back-propagation: by hand, and against autograd in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fakes import conv, linear, random_states
from simple_dqn.errors import SnapshotError
from simple_dqn.learning.guided import (
    Box,
    Convolution,
    Dense,
    Network,
    activations,
    guided_backprop,
    guided_q_value,
    read_network,
    receptive_field,
    saliency,
)
from simple_dqn.saving.snapshot import Layer
from test_deepqnetwork import make, random_batch


def norm(rng: np.random.Generator, n: int) -> Layer:
    params = {key: rng.normal(size=(n, 1)).astype(np.float32) for key in ("beta", "gamma", "gmean")}
    return Layer("BatchNorm", {}, params | {"gvar": rng.random((n, 1)).astype(np.float32)}, [])


def random_network(rng: np.random.Generator, batch_norm: bool) -> Network:
    """Three layers of windows that are no squares; neither stride divides its input. Two dense layers."""
    layers: list[Layer] = []
    for shape, stride in (((5, 2, 4, 3), 3), ((6, 5, 2, 3), 2), ((4, 6, 2, 1), 1)):
        layers += [conv(rng.normal(size=shape), stride), *([norm(rng, shape[0])] if batch_norm else [])]
    layers += [linear(rng.normal(size=(7, 8))), *([norm(rng, 7)] if batch_norm else [])]
    return read_network([*layers, linear(rng.normal(size=(3, 7)))])


def by_autograd(network: Network, states: NDArray[np.uint8]) -> tuple[Tensor, list[Tensor], Tensor]:
    """The pixels, the outputs of the convolutional layers and the Q-values, in float64, for guided gradients."""

    def rectified(x: Tensor, layer: Convolution | Dense) -> Tensor:
        y = functional.relu(x * torch.from_numpy(layer.scale) + torch.from_numpy(layer.shift))
        y.register_hook(lambda gradient: gradient.clamp(min=0))  # type: ignore[no-untyped-call]
        return y

    pixels = torch.from_numpy(states / 255).requires_grad_()
    outputs, (*hidden, last) = [pixels], network.dense
    for layer in network.convolutions:
        weights = torch.from_numpy(layer.weights).double()
        outputs.append(rectified(functional.conv2d(outputs[-1], weights, stride=layer.stride), layer))
    units = outputs[-1].flatten(1)
    for dense in hidden:
        units = rectified(units @ torch.from_numpy(dense.weights).double().T, dense)
    return pixels, outputs[1:], units @ torch.from_numpy(last.weights).double().T


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


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_gradients_of_filters_are_those_of_autograd(layer: int, batch_norm: bool) -> None:
    rng = np.random.default_rng(3)
    network = random_network(rng, batch_norm)
    states = random_states(rng, 3, 2, 17, 18)
    for filter in range(len(network.convolutions[layer].weights)):
        guided = guided_backprop(network, states, layer, filter)
        pixels, outputs, _ = by_autograd(network, states)
        highest = outputs[layer][:, filter].flatten(1).max(dim=1).values
        (expected,) = torch.autograd.grad(highest.sum(), pixels)
        assert guided.activations == pytest.approx(highest.detach().numpy(), rel=1e-4)
        np.testing.assert_allclose(guided.pixels, expected.numpy(), rtol=1e-4, atol=1e-4)
        for position, outside in zip(guided.positions, guided.pixels.copy(), strict=True):
            box = receptive_field(network, layer, *map(int, position))
            outside[:, box.top : box.top + box.height, box.left : box.left + box.width] = 0
            assert not outside.any()


@pytest.mark.parametrize("batch_norm", [False, True])
def test_gradients_of_q_values_are_those_of_autograd(batch_norm: bool) -> None:
    rng = np.random.default_rng(6)
    network = random_network(rng, batch_norm)
    states, actions = random_states(rng, 5, 2, 17, 18), np.array([0, 1, 2, 0, 1])
    found = guided_q_value(network, states, actions)
    assert np.count_nonzero(np.abs(found.pixels).max(axis=(1, 2, 3)) > 0.01) >= 4
    pixels, _, q = by_autograd(network, states)
    (expected,) = torch.autograd.grad(q[range(5), actions].sum(), pixels)
    np.testing.assert_allclose(found.q_values, q.detach().numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.pixels, expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_q_values_are_those_of_the_network_that_the_layers_are_from(batch_norm: bool) -> None:
    rng = np.random.default_rng(5)
    q_network = make(size=52, batch_norm=batch_norm)
    for _ in range(3):  # moves the running averages of batch norm
        q_network.train(batch := random_batch(rng, size=52, batch=8))
    network = read_network(q_network.layers())
    assert [layer.name for layer in network.convolutions] == ["Convolution_0", "Convolution_1", "Convolution_2"]
    found = guided_q_value(network, batch.prestates, np.zeros(8, np.intp))
    np.testing.assert_allclose(found.q_values, q_network.predict(batch.prestates), rtol=1e-3, atol=1e-4)


def test_receptive_fields_of_the_network() -> None:
    network = read_network([conv(np.zeros((1, 1, k, k)), stride) for k, stride in ((8, 4), (4, 2), (3, 1))])
    assert receptive_field(network, 0, 19, 0) == Box(76, 0, 8, 8)
    assert receptive_field(network, 1, 8, 1) == Box(64, 8, 20, 20)
    assert receptive_field(network, 2, 6, 0) == Box(48, 0, 36, 36)
