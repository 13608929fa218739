"""The kinds of layers that a network is made of, the Nature paper's network, and what its layers take and leave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from simple_dqn.errors import OptionError
from simple_dqn.machine import available_memory

Shape = tuple[int, int, int]


class Conv(NamedTuple):
    """A convolutional layer followed by a rectifier: no bias, no padding."""

    filters: int
    size: int
    stride: int


class Linear(NamedTuple):
    """A fully connected layer without bias, followed by a rectifier unless it is the last."""

    outputs: int


class Dueling(NamedTuple):
    """The last layer in two streams, each fully connected to its half of the units before.

    The first half gives the state's value V, the other each action's advantage A: Q_a = V + A_a − mean(A). Wang et al.,
    "Dueling Network Architectures for Deep Reinforcement Learning", ICML 2016, arXiv:1511.06581.
    """

    outputs: int


Kind = Conv | Linear | Dueling
Layers = Sequence[Kind]

NATURE = (Conv(32, 8, 4), Conv(64, 4, 2), Conv(64, 3, 1), Linear(512))  # Mnih et al. 2015, Methods


def q_layers(num_actions: int, dueling: bool) -> tuple[Kind, ...]:
    """All layers: those of the Nature paper; of a dueling network each stream has a hidden layer like its own."""
    *convolutions, hidden = NATURE
    if dueling:
        return (*convolutions, Linear(2 * hidden[0]), Dueling(num_actions))
    return (*NATURE, Linear(num_actions))


def shapes(layers: Layers, state_shape: Shape) -> list[Shape]:
    """(channels, height, width) of the state, and of what leaves each layer; the units of a `Linear` are channels.

    Raises:
        OptionError: nothing would be left of the screens after the convolutions.
    """
    found = [state_shape]
    for layer in layers:
        if not isinstance(layer, Conv):
            found.append((layer.outputs, 1, 1))
            continue
        height, width = ((n - layer.size) // layer.stride + 1 for n in found[-1][1:])
        if height < 1 or width < 1:
            raise OptionError(
                f"screens of {state_shape[2]}x{state_shape[1]} are too small for the network: --screen_width "
                "and --screen_height must be at least 36"
            )
        found.append((layer.filters, height, width))
    return found


def fan_ins(layers: Layers, state_shape: Shape) -> list[int]:
    """How many numbers each unit of each layer sees."""
    inputs = shapes(layers, state_shape)
    return [
        layer.size**2 * seen[0] if isinstance(layer, Conv) else math.prod(seen)
        for layer, seen in zip(layers, inputs[:-1], strict=True)
    ]


def require_memory(layers: Layers, state_shape: Shape, batch_size: int) -> None:
    """Raises OptionError if weights, gradients and activations cannot fit in memory."""
    weights = sum(fan_in * layer[0] for layer, fan_in in zip(layers, fan_ins(layers, state_shape), strict=True))
    activations = sum(map(math.prod, shapes(layers, state_shape)))
    need = 4 * (6 * weights + 4 * activations * batch_size)
    if need > available_memory():
        raise OptionError(
            f"--batch_size {batch_size} with screens of {state_shape[2]}x{state_shape[1]} needs about "
            f"{need / 2**30:.1f} GiB of memory for the network, more than there is: use smaller ones"
        )
