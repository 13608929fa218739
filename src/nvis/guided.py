"""Guided back-propagation: which pixels make a unit of a convolutional layer fire.

Springenberg, Dosovitskiy, Brox and Riedmiller, "Striving for Simplicity: The All Convolutional Net", ICLR 2015
workshop, arXiv:1412.6806. By hand, and from the layers of a snapshot: whatever computes the network in training, it is
explained here. It takes half a millisecond per state on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from simple_dqn.snapshot import Layer

Floats = NDArray[np.float32]
_EPSILON = 1e-3  # of batch normalization, Neon's


class Convolution(NamedTuple):
    """A convolutional layer, its batch normalization (identity where there is none) and its rectifier."""

    name: str  # its place among Neon's layers, such as 0002
    weights: Floats  # (filters, channels, height, width)
    stride: int
    scale: Floats  # (filters, 1, 1)
    shift: Floats  # (filters, 1, 1)


class Guided(NamedTuple):
    """What guided back-propagation finds, for each of n states."""

    activations: Floats  # (n,) of the filter's most active unit; 0 if none is active
    positions: NDArray[np.intp]  # (n, 2) row and column of that unit
    pixels: Floats  # (n, history, height, width), the gradient


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int


def convolutions(layers: Sequence[Layer]) -> list[Convolution]:
    """The convolutional layers of a network, from the layers as a snapshot has them; batch norm's running values."""
    found: list[Convolution] = []
    place = 0  # Neon counts rectifiers and batch normalizations as layers of their own
    for layer in layers:
        if layer.type == "Convolution":
            height, width, filters = layer.config["fshape"]
            weights = np.asarray(layer.params["W"], np.float32).reshape(-1, height, width, filters)
            one = np.ones((filters, 1, 1), np.float32)
            strides = int(layer.config["strides"])
            found.append(Convolution(f"{place:04d}", weights.transpose(3, 0, 1, 2), strides, one, one * 0))
            place += 2
        elif layer.type == "BatchNorm":
            beta, gamma, mean, var = (
                np.asarray(layer.params[key], np.float32).reshape(-1, 1, 1)
                for key in ("beta", "gamma", "gmean", "gvar")
            )
            scale = gamma / np.sqrt(var + np.float32(_EPSILON))
            found[-1] = found[-1]._replace(scale=scale, shift=beta - scale * mean)
            place += 1
        else:  # fully connected from here on
            break
    return found


def activations(network: Sequence[Convolution], states: NDArray[np.uint8]) -> list[Floats]:
    """What leaves each layer's rectifier, (n, filters, height, width), for states (n, history, height, width)."""
    x: Floats = states / np.float32(255)
    found = []
    with np.errstate(over="ignore", invalid="ignore"):  # a network that diverged has weights that are no numbers
        for layer in network:
            windows = sliding_window_view(x, layer.weights.shape[2:], axis=(2, 3))
            windows = windows[:, :, :: layer.stride, :: layer.stride]  # (n, channels, rows, columns, height, width)
            sums = np.tensordot(windows, layer.weights, axes=([1, 4, 5], [1, 2, 3]))  # (n, rows, columns, filters)
            x = np.maximum(sums.transpose(0, 3, 1, 2) * layer.scale + layer.shift, 0)
            found.append(x)
    return found


def guided_backprop(network: Sequence[Convolution], states: NDArray[np.uint8], layer: int, filter: int) -> Guided:
    """For each state, the gradient of the filter's most active unit with respect to the pixels (0 to 1), guided.

    A rectifier lets the gradient pass only where both its activation and the gradient are positive.

    Args:
        network: the convolutional layers.
        states: (n, history, height, width).
        layer: which layer of `network` the unit is in.
        filter: which filter's unit it is.
    """
    outputs = activations(network[: layer + 1], states)
    n, _, _, width = outputs[layer].shape
    units = outputs[layer][:, filter].reshape(n, -1)
    best = units.argmax(axis=1)
    positions = np.stack(np.divmod(best, width), axis=1)
    gradient = np.zeros_like(outputs[layer])
    gradient[np.arange(n), filter, positions[:, 0], positions[:, 1]] = 1
    for i in range(layer, -1, -1):
        gradient = np.where((outputs[i] > 0) & (gradient > 0), gradient, np.float32(0))
        gradient = _to_input(network[i], gradient, outputs[i - 1].shape if i else states.shape)
    return Guided(units[np.arange(n), best], positions, gradient)


def _to_input(layer: Convolution, gradient: Floats, shape: tuple[int, ...]) -> Floats:
    """The gradient with respect to a layer's input of that shape: each unit gives to the window that it saw."""
    given = np.tensordot(gradient * layer.scale, layer.weights, axes=([1], [0]))
    given = given.transpose(0, 3, 1, 2, 4, 5)  # (n, channels, rows, columns, height, width)
    rows, columns, height, width = given.shape[2:]
    result = np.zeros(shape, np.float32)
    for r in range(height):
        for c in range(width):
            end_r, end_c = r + layer.stride * (rows - 1) + 1, c + layer.stride * (columns - 1) + 1
            result[:, :, r : end_r : layer.stride, c : end_c : layer.stride] += given[..., r, c]
    return result


def receptive_field(network: Sequence[Convolution], layer: int, row: int, column: int) -> Box:
    """The pixels that a unit of a layer sees."""
    top, left, height, width = row, column, 1, 1
    for own in reversed(network[: layer + 1]):
        top, left = top * own.stride, left * own.stride
        height = (height - 1) * own.stride + own.weights.shape[2]
        width = (width - 1) * own.stride + own.weights.shape[3]
    return Box(top, left, height, width)
