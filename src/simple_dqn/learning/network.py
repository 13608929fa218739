"""The Q-network: the weights of its layers in one flat buffer, the forward pass and the backward pass.

Channels come last in memory, because convolutions are fastest in this layout (11.5 ms per update instead of 14.9 ms,
two CPU cores). The arithmetic and the layout of files are those of Nervana's Neon 2.6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simple_dqn.learning.layers import Layers, Shape, shapes
from simple_dqn.saving import snapshot


class ParameterPlace(NamedTuple):
    """The place of one parameter in a flat buffer."""

    layer: int  # counted from 0
    name: str
    shape: tuple[int, ...]  # as stored: filters are (filters, height, width, channels)
    fill: float | None  # first values; None: random
    start: int
    stop: int


class Layout:
    """The places of all parameters in flat buffers and in Neon's files.

    Args:
        layers: all of them, in order.
        state_shape: (history, height, width), the input of the first.

    Raises:
        OptionError: the screens are smaller than a convolution.
    """

    def __init__(self, layers: Layers, state_shape: Shape) -> None:
        self.layers = layers
        self.input_shapes = shapes(layers, state_shape)[:-1]
        self.places: list[ParameterPlace] = []
        start = 0
        for i, (layer, input_shape) in enumerate(zip(layers, self.input_shapes, strict=True)):
            for name, (shape, fill) in layer.parameters(input_shape).items():
                self.places.append(ParameterPlace(i, name, shape, fill, start, start + math.prod(shape)))
                start += math.prod(shape)

    def first_weights(self, rng: np.random.RandomState) -> NDArray[np.float64]:
        """Initial weights, flat. The random ones are U(−k, k) with k = sqrt(3 / fan_in), float32.

        They are drawn as Neon draws them: the last layer first, in the shapes of its files.
        """
        flat = np.zeros(self.places[-1].stop)
        drawn = [place for place in self.places if place.fill is None]
        for place in (drawn[-1], *drawn[:-1]):
            layer, input_shape = self.layers[place.layer], self.input_shapes[place.layer]
            k = math.sqrt(3 / math.prod(place.shape[1:]))
            values = rng.uniform(-k, k, layer.to_neon(np.zeros(place.shape), input_shape).shape).astype(np.float32)
            flat[place.start : place.stop] = layer.from_neon(values, input_shape, place.shape).ravel()
        for place in self.places:
            if place.fill is not None:
                flat[place.start : place.stop] = place.fill
        return flat

    def views(self, flat: Tensor) -> list[dict[str, Tensor]]:
        """The parameters of each layer as views of a flat buffer; filters are (filters, channels, height, width)."""
        views: list[dict[str, Tensor]] = [{} for _ in self.layers]
        for place in self.places:
            view = flat[place.start : place.stop].view(place.shape)
            views[place.layer][place.name] = view.permute(0, 3, 1, 2) if view.dim() == 4 else view
        return views

    def to_neon(self, network: QNetwork, states: Sequence[Tensor]) -> list[snapshot.Layer]:
        """The layers of a snapshot, from the network's weights and the optimizer's flat states."""
        flats = [flat.cpu().numpy() for flat in (network.master, *states)]
        found = []
        for i, (layer, input_shape) in enumerate(zip(self.layers, self.input_shapes, strict=True)):
            params: dict[str, NDArray[Any]] = {}
            kept: list[Any] = []
            for place in (place for place in self.places if place.layer == i):
                stored = [flat[place.start : place.stop].reshape(place.shape) for flat in flats]
                weights, *rest = (np.array(layer.to_neon(array, input_shape), order="C") for array in stored)
                params[place.name] = layer.weights_to_neon(weights)
                kept.append(rest)
            params |= {name: array.cpu().numpy()[:, None].copy() for name, array in network.averages[i].items()}
            if params:
                found.append(snapshot.Layer(*layer.neon(), params, kept[0] if len(kept) == 1 else kept))
        return found

    def from_neon(self, layers: Sequence[snapshot.Layer], network: QNetwork) -> list[NDArray[np.float64]]:
        """Put a snapshot's weights into `network`; return the optimizer's flat states, if the snapshot has any."""
        arrays: list[list[Any]] = []  # for each place, its weights and the optimizer's states
        indexes = [i for i, layer in enumerate(self.layers) if network.arrays[i]]
        for i, found in zip(indexes, layers, strict=True):
            layer, input_shape = self.layers[i], self.input_shapes[i]
            places = [place for place in self.places if place.layer == i]
            states = [found.states] if len(places) == 1 else found.states
            for place, kept in zip(places, states, strict=True):
                values = [layer.weights_from_neon(found.params[place.name]), *kept]
                arrays.append(
                    [layer.from_neon(np.asarray(v, np.float64), input_shape, place.shape).ravel() for v in values]
                )
            for name, average in network.averages[i].items():
                average.copy_(torch.from_numpy(found.params[name].astype(np.float64).ravel()))
        flat, *states = (np.concatenate(column) for column in zip(*arrays, strict=False))
        network.load(flat)
        return states


class Pass(NamedTuple):
    """What a layer's forward pass keeps for its backward pass."""

    p: dict[str, Tensor]
    x: Tensor
    y: Tensor


class QNetwork:
    """One set of weights, in one flat buffer, with the forward and the backward pass.

    In low precision the network computes with a copy; `master` holds the weights in float32. Layers with a backward
    pass write gradients straight into one flat buffer. Autograd would clear, allocate, add and copy (13 %
    of an update of 32 states on two cores).
    """

    def __init__(self, layout: Layout, weights: NDArray[np.float64], dtype: torch.dtype, device: torch.device) -> None:
        self.layout = layout
        master = torch.float64 if dtype is torch.float64 else torch.float32
        self.master = torch.from_numpy(weights).to(device, master)
        self.weights = self.master if dtype is master else self.master.to(dtype)
        self.gradient = torch.zeros_like(self.weights)
        parameters, self._gradients = layout.views(self.weights), layout.views(self.gradient)
        self._last_gradient = self._gradients[-1]
        if self.weights is not self.master:
            # The last layer computes in float32, because actions often differ by less than 8 bits can tell (bfloat16
            # chose another action than float32 in 8 % of Pong's states, with this in 1 %).
            parameters[-1] = layout.views(self.master)[-1]
            self._gradients[-1] = {name: torch.zeros_like(array) for name, array in parameters[-1].items()}
        self.averages = [
            {
                name: torch.zeros(shape, dtype=master, device=device)
                for name, shape in layer.averages(input_shape).items()
            }
            for layer, input_shape in zip(layout.layers, layout.input_shapes, strict=True)
        ]
        self.arrays = [p | averages for p, averages in zip(parameters, self.averages, strict=True)]  # for each layer
        self._inputs: dict[bool, Tensor] = {}  # whether for a backward pass: of the largest batch

    def forward(self, states: Tensor, trace: list[Pass] | None = None) -> Tensor:
        """Q-values (batch, num_actions) of uint8 states (batch, history, height, width).

        With a `trace`, the layers compute as in training, and the trace receives what `backward` needs. The next traced
        pass may overwrite its inputs, so call `backward` before.
        """
        x = self._channels_last(states, trace is not None)
        for i, layer in enumerate(self.layout.layers):
            p, autograd = self.arrays[i], trace is not None and layer.by_autograd
            if i == len(self.arrays) - 1:
                x = x.to(self.master.dtype)
            if autograd:
                x = x.detach().requires_grad_()
                p = p | {name: p[name].detach().requires_grad_() for name in self._gradients[i]}
            y = layer.forward(p, x, training=trace is not None)
            if trace is not None:
                trace.append(Pass(p, x, y))
            x = y.detach().clone() if autograd else y  # autograd may need y, and a rectifier works in place
        return x

    def backward(self, trace: Sequence[Pass], g: Tensor) -> None:
        """Fill `gradient` with that of Σ g · Q over batch and actions, for g (batch, num_actions)."""
        for i in reversed(range(len(trace))):
            layer, (p, x, y), into = self.layout.layers[i], trace[i], self._gradients[i]
            g = g.to(y.dtype)
            if not layer.by_autograd:
                g = layer.backward(p, x, y, g, into, first=i == 0)
                continue
            inputs = (x, *(p[name] for name in into))
            g, *gradients = torch.autograd.grad(y, inputs, g, materialize_grads=True)
            for array, gradient in zip(into.values(), gradients, strict=True):
                array.copy_(gradient)
        for name, array in self._last_gradient.items():
            if array is not self._gradients[-1][name]:
                array.copy_(self._gradients[-1][name])

    def _channels_last(self, states: Tensor, traced: bool) -> Tensor:
        """States in the network's precision, their screens interleaved, in a buffer that stays.

        Bytes are interleaved before they become floats (0.2 ms for 32 states, not 0.5). A new buffer for each pass
        would cost page faults (0.6 ms); on a GPU PyTorch keeps such memory itself. Smaller batches use a part of the
        largest one's buffer, because games that end one after the other would leave a buffer of every size.
        """
        n, history, height, width = states.shape
        interleaved = torch.stack(states.unbind(1), dim=-1)
        if states.is_cuda:
            return interleaved.to(self.weights.dtype).permute(0, 3, 1, 2)
        if traced not in self._inputs or len(self._inputs[traced]) < n:
            self._inputs[traced] = self.weights.new_empty(n, height, width, history)
        return self._inputs[traced][:n].copy_(interleaved).permute(0, 3, 1, 2)

    def refresh(self) -> None:
        """Copy `master` to the weights that the network computes with."""
        if self.weights is not self.master:
            self.weights.copy_(self.master)

    def load(self, weights: NDArray[np.float64]) -> None:
        """Set the weights, from flat ones."""
        self.master.copy_(torch.from_numpy(weights))
        self.refresh()

    @property
    def _kept(self) -> list[Tensor]:
        """Weights and averages; of batch normalization all means, then all variances."""
        names = dict.fromkeys(name for averages in self.averages for name in averages)
        return [self.master, *(averages[name] for name in names for averages in self.averages if name in averages)]

    def state(self) -> list[NDArray[Any]]:
        """Weights and averages."""
        return [tensor.cpu().numpy() for tensor in self._kept]

    def restore(self, state: Sequence[NDArray[Any]]) -> None:
        """Set weights and averages.

        Raises:
            ValueError: they belong to another network.
        """
        for tensor, array in zip(self._kept, state, strict=True):
            if tensor.shape != array.shape:
                raise ValueError(f"an array of shape {array.shape} instead of {tuple(tensor.shape)}")
            tensor.copy_(torch.tensor(array))
        self.refresh()

    def approach(self, other: QNetwork, rate: float = 1.0) -> None:
        """Move weights and averages a share of the way to those of another network; 1 makes a copy."""
        for tensor, goal in zip(self._kept, other._kept, strict=True):
            tensor.lerp_(goal, rate)
        self.refresh()
