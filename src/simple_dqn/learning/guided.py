"""Guided back-propagation: the pixels that activate a unit of a convolutional layer, or that raise a Q-value.

Springenberg, Dosovitskiy, Brox and Riedmiller, "Striving for Simplicity: The All Convolutional Net", ICLR 2015
workshop, arXiv:1412.6806. It computes with NumPy, from the layers of a snapshot, because Neon trains networks too. A
state takes half a millisecond on one core for a unit, two for a Q-value.

    network = read_network(read_snapshot(path).layers)
    guided = guided_backprop(network, states, layer=2, filter=5)
    seen = guided_q_value(network, states, actions)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from simple_dqn.errors import SnapshotError
from simple_dqn.saving.snapshot import Layer

Floats = NDArray[np.float32]
_EPSILON = 1e-3  # of batch normalization, Neon's


class Convolution(NamedTuple):
    """A convolutional layer and its batch normalization; without one, scale is 1 and shift 0."""

    name: str  # Neon's, such as Convolution_1
    weights: Floats  # (filters, channels, height, width)
    stride: int
    scale: Floats  # (filters, 1, 1)
    shift: Floats  # (filters, 1, 1)


class Dense(NamedTuple):
    """A fully connected layer and its batch normalization; without one, scale is 1 and shift 0."""

    weights: Floats  # (outputs, inputs)
    scale: Floats  # (outputs,)
    shift: Floats  # (outputs,)


class Network(NamedTuple):
    """The layers of a Q-network; a rectifier follows each but the last."""

    convolutions: list[Convolution]
    dense: list[Dense]


class Guided(NamedTuple):
    """The result of `guided_backprop` for n states."""

    activations: Floats  # (n,) of the filter's most active unit; 0 if none is active
    positions: NDArray[np.intp]  # (n, 2) row and column of that unit
    pixels: Floats  # (n, history, height, width), the gradient


class GuidedQValue(NamedTuple):
    """The result of `guided_q_value` for n states."""

    q_values: Floats  # (n, num_actions)
    pixels: Floats  # (n, history, height, width), the gradient


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int


def read_network(layers: Sequence[Layer]) -> Network:
    """The network of a snapshot's layers, or of those of `DeepQNetwork.layers`. Batch norm uses its averages.

    Raises:
        SnapshotError: a layer is of another kind, or has other parameters, than those of Neon.
    """
    network = Network([], [])
    for layer in layers:
        known: list[Any] = network.dense if network.dense or layer.type == "Linear" else network.convolutions
        if layer.type == "BatchNorm" and known:
            beta, gamma, mean, var = (
                np.asarray(layer.params[key], np.float32) for key in ("beta", "gamma", "gmean", "gvar")
            )
            scale = (gamma / np.sqrt(var + np.float32(_EPSILON))).reshape(known[-1].scale.shape)
            known[-1] = known[-1]._replace(scale=scale, shift=(beta - mean * scale.reshape(-1, 1)).reshape(scale.shape))
        elif layer.type == "Convolution" and not network.dense and [*layer.params] == ["W"]:
            height, width, filters = layer.config["fshape"]
            weights = np.asarray(layer.params["W"], np.float32).reshape(-1, height, width, filters)
            one = np.ones((filters, 1, 1), np.float32)
            stride = int(layer.config["strides"])
            name = f"Convolution_{len(known)}"
            known.append(Convolution(name, weights.transpose(3, 0, 1, 2), stride, one, one * 0))
        elif layer.type != "Linear" or [*layer.params] != ["W"]:
            raise SnapshotError(
                f"guided back-propagation cannot explain a {layer.type} with {', '.join(layer.params)} here: remove "
                "the layer, or add it to simple_dqn/learning/guided.py"
            )
        else:
            weights = np.asarray(layer.params["W"], np.float32)
            one = np.ones(len(weights), np.float32)
            known.append(Dense(weights, one, one * 0))
    if not network.convolutions:
        raise SnapshotError("guided back-propagation needs a convolutional layer, and this network has none")
    return network


def activations(layers: Sequence[Convolution], states: NDArray[np.uint8]) -> list[Floats]:
    """The output of each layer's rectifier, (n, filters, height, width), for states (n, history, height, width)."""
    x: Floats = states / np.float32(255)
    found = []
    with np.errstate(over="ignore", invalid="ignore"):  # because the weights of a network that diverged are NaN
        for layer in layers:
            windows = sliding_window_view(x, layer.weights.shape[2:], axis=(2, 3))
            windows = windows[:, :, :: layer.stride, :: layer.stride]  # (n, channels, rows, columns, height, width)
            sums = np.tensordot(windows, layer.weights, axes=([1, 4, 5], [1, 2, 3]))  # (n, rows, columns, filters)
            x = np.maximum(sums.transpose(0, 3, 1, 2) * layer.scale + layer.shift, 0)
            found.append(x)
    return found


def guided_backprop(network: Network, states: NDArray[np.uint8], layer: int, filter: int) -> Guided:
    """For each state, the gradient of the filter's most active unit with respect to the pixels (0 to 1), guided.

    A rectifier lets the gradient pass only where both its activation and the gradient are positive.

    Args:
        network: the network.
        states: (n, history, height, width).
        layer: number of the convolutional layer, from 0.
        filter: number of the filter in it, from 0.
    """
    outputs = activations(network.convolutions[: layer + 1], states)
    n, _, _, width = outputs[layer].shape
    units = outputs[layer][:, filter].reshape(n, -1)
    best = units.argmax(axis=1)
    positions = np.stack(np.divmod(best, width), axis=1)
    gradient = np.zeros_like(outputs[layer])
    gradient[np.arange(n), filter, positions[:, 0], positions[:, 1]] = 1
    return Guided(units[np.arange(n), best], positions, _to_pixels(network, outputs, gradient, states.shape))


def guided_q_value(network: Network, states: NDArray[np.uint8], actions: NDArray[np.integer[Any]]) -> GuidedQValue:
    """For each state, the gradient of the Q-value of an action with respect to the pixels (0 to 1), guided.

    Args:
        network: the network.
        states: (n, history, height, width).
        actions: (n,), an action for each state.
    """
    outputs = activations(network.convolutions, states)
    below, hidden = outputs[-1].reshape(len(states), -1), []  # (n, units)
    *rectified, last = network.dense
    with np.errstate(over="ignore", invalid="ignore"):
        for layer in rectified:
            below = np.maximum(below @ layer.weights.T * layer.scale + layer.shift, 0)
            hidden.append(below)
        q_values = below @ last.weights.T
        gradient = last.weights[actions]  # (n, units)
        for layer, output in zip(reversed(rectified), reversed(hidden), strict=True):
            gradient = (_guide(gradient, output) * layer.scale) @ layer.weights
        pixels = _to_pixels(network, outputs, gradient.reshape(outputs[-1].shape), states.shape)
    return GuidedQValue(q_values, pixels)


def saliency(pixels: Floats) -> Floats:
    """The saliency of each pixel, from 0 to 1, (n, height, width), for gradients (n, history, height, width).

    It is the largest absolute gradient over the history's screens, divided by the largest of the state.
    """
    amounts: Floats = np.nan_to_num(np.abs(pixels), posinf=0).max(axis=1)
    strongest = amounts.max(axis=(1, 2), keepdims=True)
    return np.divide(amounts, strongest, out=np.zeros_like(amounts), where=strongest > 0)


def _to_pixels(network: Network, outputs: Sequence[Floats], gradient: Floats, shape: tuple[int, ...]) -> Floats:
    """The gradient with respect to states of that `shape`, from that of the last of the convolutions' `outputs`."""
    for i in reversed(range(len(outputs))):
        gradient = _guide(gradient, outputs[i])
        gradient = _to_input(network.convolutions[i], gradient, outputs[i - 1].shape if i else shape)
    return gradient


def _guide(gradient: Floats, output: Floats) -> Floats:
    """The gradient that a rectifier lets pass: only where both its output and the gradient are positive."""
    return np.where((output > 0) & (gradient > 0), gradient, np.float32(0))


def _to_input(layer: Convolution, gradient: Floats, shape: tuple[int, ...]) -> Floats:
    """The gradient with respect to a layer's input of that shape: the sum over the windows of its units."""
    given = np.tensordot(gradient * layer.scale, layer.weights, axes=([1], [0]))
    given = given.transpose(0, 3, 1, 2, 4, 5)  # (n, channels, rows, columns, height, width)
    rows, columns, height, width = given.shape[2:]
    result = np.zeros(shape, np.float32)
    for r in range(height):
        for c in range(width):
            end_r, end_c = r + layer.stride * (rows - 1) + 1, c + layer.stride * (columns - 1) + 1
            result[:, :, r : end_r : layer.stride, c : end_c : layer.stride] += given[..., r, c]
    return result


def receptive_field(network: Network, layer: int, row: int, column: int) -> Box:
    """The pixels that a unit of a convolutional layer sees."""
    top, left, height, width = row, column, 1, 1
    for below in reversed(network.convolutions[: layer + 1]):
        top, left = top * below.stride, left * below.stride
        height = (height - 1) * below.stride + below.weights.shape[2]
        width = (width - 1) * below.stride + below.weights.shape[3]
    return Box(top, left, height, width)
