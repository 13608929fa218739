"""The layers of the Q-network: their weights in one flat buffer, the way through them and back.

Channels come last in memory, which is how the CPU and the GPU convolve fastest (update 11.5 ms against 14.9 ms on two
cores). What is computed, and the layout of files, are those of Nervana's Neon 2.6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from simple_dqn.learning.layers import Conv, Dueling, Layers, shapes
from simple_dqn.saving.snapshot import Layer


class Part(NamedTuple):
    """Where one array of trainable numbers lies in a flat buffer."""

    name: str  # W, beta or gamma
    shape: tuple[int, ...]  # as stored: (filters, height, width, channels), (outputs, inputs) or (n,)
    start: int

    @property
    def stop(self) -> int:
        return self.start + math.prod(self.shape)


class Layout:
    """The shapes of the network's layers, and their place in flat buffers and in Neon's files.

    Args:
        layers: all of them.
        state_shape: (history, height, width) of what the first one sees.
        batch_norm: batch normalization follows all but the last.

    Raises:
        OptionError: nothing would be left of the screens after the convolutions.
    """

    def __init__(self, layers: Layers, state_shape: tuple[int, int, int], batch_norm: bool) -> None:
        self.state_shape = state_shape
        self.batch_norm = batch_norm
        self.layers = layers
        self.parts: list[Part] = []
        self.widths: list[int] = []  # channels or units that leave each layer
        seen = state_shape
        for layer, left in zip(layers, shapes(layers, state_shape)[1:], strict=True):
            if isinstance(layer, Conv):
                shape: tuple[int, ...] = (layer.filters, layer.size, layer.size, seen[0])
                self.flattened = left  # what the first fully connected layer sees
            elif isinstance(layer, Dueling):
                shape = (1 + layer.outputs, math.prod(seen) // 2)
            else:
                shape = (layer.outputs, math.prod(seen))
            seen = left
            self.widths.append(left[0])
            self._add("W", shape)
            if batch_norm and layer is not self.layers[-1]:
                self._add("beta", left[:1])
                self._add("gamma", left[:1])
        self.size = self.parts[-1].stop

    def _add(self, name: str, shape: tuple[int, ...]) -> None:
        self.parts.append(Part(name, shape, self.parts[-1].stop if self.parts else 0))

    def xavier(self, rng: np.random.RandomState) -> NDArray[np.float64]:
        """Initial weights, flat: U(−k, k) with k = sqrt(3 / fan_in), drawn in Neon's order, the last layer first."""
        flat = np.zeros(self.size)
        weights = [part for part in self.parts if part.name == "W"]
        for part in (weights[-1], *weights[:-1]):
            fan_in = math.prod(part.shape[1:])
            k = math.sqrt(3 / fan_in)
            shape = (fan_in, part.shape[0]) if len(part.shape) == 4 else part.shape  # Neon's
            flat[part.start : part.stop] = self._from_neon(rng.uniform(-k, k, shape).astype(np.float32), part)
        for part in self.parts:
            if part.name == "gamma":
                flat[part.start : part.stop] = 1
        return flat

    def views(self, flat: Tensor) -> list[dict[str, Tensor]]:
        """The parts of a flat buffer, layer by layer, in torch's shapes: W is (filters, channels, height, width)."""
        views: list[dict[str, Tensor]] = []
        for part in self.parts:
            view = flat[part.start : part.stop].view(part.shape)
            views += [{}] if part.name == "W" else []
            views[-1][part.name] = view.permute(0, 3, 1, 2) if view.dim() == 4 else view
        return views

    def to_neon(self, network: QNetwork, states: Sequence[Tensor]) -> list[Layer]:
        """The layers of a snapshot, of the network's weights and of flat optimizer states."""
        flats = [flat.cpu().numpy() for flat in (network.master, *states)]
        values = [[self._to_neon(flat, part) for flat in flats] for part in self.parts]
        layers, own = [], iter(values)
        for i, layer in enumerate(self.layers):
            weights, *optimizer = next(own)
            if isinstance(layer, Dueling):
                weights = np.asarray(_as_one_layer(torch.from_numpy(weights)))
            if isinstance(layer, Conv):
                config: dict[str, Any] = {"fshape": (layer.size, layer.size, layer.filters), "strides": layer.stride}
                layers.append(Layer("Convolution", config, {"W": weights}, optimizer))
            else:
                layers.append(Layer("Linear", {"nout": layer.outputs}, {"W": weights}, optimizer))
            if self.batch_norm and layer is not self.layers[-1]:
                (beta, *beta_states), (gamma, *gamma_states) = next(own), next(own)
                mean, var = (running[i].cpu().numpy()[:, None].copy() for running in (network.mean, network.var))
                params = {"beta": beta, "gamma": gamma, "gmean": mean, "gvar": var}
                layers.append(Layer("BatchNorm", {}, params, [beta_states, gamma_states]))
        return layers

    def from_neon(self, layers: Sequence[Layer], network: QNetwork) -> list[NDArray[np.float64]]:
        """Puts a snapshot's weights into `network` and returns the optimizer's flat states, if it has any."""
        arrays: list[list[Any]] = []  # for each part, its weights and then its states
        for layer in layers:
            if layer.type == "BatchNorm":
                arrays += [[layer.params[key], *own] for key, own in zip(("beta", "gamma"), layer.states, strict=True)]
            else:
                arrays.append([layer.params["W"], *layer.states])
        if isinstance(self.layers[-1], Dueling):
            arrays[-1][0] = _as_streams(arrays[-1][0])
        count = min(map(len, arrays))
        flat, *states = (
            np.concatenate([self._from_neon(own[k], part) for own, part in zip(arrays, self.parts, strict=True)])
            for k in range(count)
        )
        network.load(flat)
        norms = [layer.params for layer in layers if layer.type == "BatchNorm"]
        for params, mean, var in zip(norms, network.mean, network.var, strict=True):
            mean.copy_(torch.from_numpy(params["gmean"].astype(np.float64).ravel()))
            var.copy_(torch.from_numpy(params["gvar"].astype(np.float64).ravel()))
        return states

    def _from_neon(self, array: NDArray[Any], part: Part) -> NDArray[np.float64]:
        """Flat: (C·R·S, K) becomes (K, R, S, C), and the inputs of the first fully connected layer (H, W, C)."""
        array = np.asarray(array, np.float64)
        if len(part.shape) == 4:
            filters, height, width, channels = part.shape
            return array.reshape(channels, height, width, filters).transpose(3, 1, 2, 0).ravel()
        if self._sees_image(part):
            return array.reshape(-1, *self.flattened).transpose(0, 2, 3, 1).ravel()
        return array.ravel()

    def _to_neon(self, flat: NDArray[Any], part: Part) -> NDArray[Any]:
        stored = flat[part.start : part.stop].reshape(part.shape)
        if len(part.shape) == 4:
            return np.ascontiguousarray(stored.transpose(3, 1, 2, 0)).reshape(-1, part.shape[0])
        if self._sees_image(part):
            channels, height, width = self.flattened
            image = stored.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
            return np.ascontiguousarray(image).reshape(part.shape)
        return stored[:, None].copy() if len(part.shape) == 1 else stored.copy()

    def _sees_image(self, part: Part) -> bool:
        first = next(part for part in self.parts if len(part.shape) == 2)
        return part is first


class Pass(NamedTuple):
    """What a layer's forward pass leaves for its backward pass."""

    inputs: Tensor
    output: Tensor  # after the rectifier
    normalized: Sequence[Tensor]  # batch norm's input, mean and 1/sqrt(var + ε); empty without batch norm


class QNetwork:
    """One set of weights, in one flat buffer, and the way through it and back.

    Where the network computes in low precision, `master` holds the weights in float32 and a copy is computed with.
    Back-propagation is written out: gradients go straight to their place in one buffer, where autograd would clear,
    allocate, add and copy (13 % of an update of 32 states on two cores).
    """

    def __init__(self, layout: Layout, weights: NDArray[np.float64], dtype: torch.dtype, device: torch.device) -> None:
        self.layout = layout
        master = torch.float64 if dtype is torch.float64 else torch.float32
        self.master = torch.from_numpy(weights).to(device, master)
        self.weights = self.master if dtype is master else self.master.to(dtype)
        self.gradient = torch.zeros_like(self.weights)
        self._weights, self._gradients = layout.views(self.weights), layout.views(self.gradient)
        # What one action is better by than another is often less than 8 bits can tell, so the last layer keeps to 24
        # (bfloat16 chose another action than float32 in 8 % of Pong's states, with this in 1 %).
        self._weights[-1] = layout.views(self.master)[-1]
        self._inputs: dict[tuple[int, bool], Tensor] = {}  # by batch size, and whether for a backward pass
        widths = layout.widths[:-1] if layout.batch_norm else []
        self.mean = [torch.zeros(n, dtype=master, device=device) for n in widths]  # running, for inference
        self.var = [torch.zeros(n, dtype=master, device=device) for n in widths]

    def forward(self, states: Tensor, trace: list[Pass] | None = None) -> Tensor:
        """Q-values (n, num_actions) of uint8 states (n, history, height, width); training, if it is traced.

        Of several traced passes of as many states only the last can be gone back through.
        """
        x = self._channels_last(states, trace is not None)
        last = len(self.layout.layers) - 1
        for i, layer in enumerate(self.layout.layers):
            weight, inputs = self._weight(i), x
            normalized: Sequence[Tensor] = ()
            if isinstance(layer, Conv):
                weight = weight / 255 if i == 0 else weight  # cheaper than dividing the states
                x = functional.conv2d(inputs, weight, stride=layer.stride)  # (n, filters, height, width)
            elif x.dim() == 4 and len(x) >= _MANY:
                x = functional.conv2d(inputs, _as_filters(weight, inputs)).flatten(1)  # (n, outputs)
            else:
                inputs = inputs.to(weight.dtype)
                x = functional.linear(_flat(inputs), weight)  # (n, outputs)
            if self.layout.batch_norm and i < last:
                x, *normalized = self._normalize(x, i, training=trace is not None)
            x = x.relu_() if i < last else x
            if trace is not None:
                trace.append(Pass(inputs, x, normalized))
        return x

    def backward(self, trace: Sequence[Pass], deltas: Tensor) -> None:
        """Fills `gradient` with the sum over the batch of the gradients of Σ deltas · Q, deltas (n, num_actions)."""
        g = deltas
        for i in reversed(range(len(trace))):
            layer, (inputs, output, normalized) = self.layout.layers[i], trace[i]
            weight, gradient = self._weight(i), self._gradients[i]["W"]
            if i < len(trace) - 1:
                # Through the rectifier, where its output is positive.
                g = torch.ops.aten.threshold_backward(g.to(output.dtype), output, 0)
            if normalized:
                g = self._normalize_backward(g, i, normalized)
            if isinstance(layer, Conv):
                g, of_weight = _convolution_backward(g, inputs, weight, layer.stride, [i > 0, True, False])
                gradient.copy_(of_weight if i else of_weight / 255)
                continue
            if i < len(trace) - 1:
                torch.mm(g.t(), _flat(inputs), out=gradient)
            else:  # not of the buffer's precision, where that is low
                of_weight = torch.mm(g.t(), _flat(inputs))
                gradient.copy_(_stream_gradients(of_weight) if isinstance(layer, Dueling) else of_weight)
            if inputs.dim() == 4:
                g, _ = _convolution_backward(
                    g[..., None, None], inputs, _as_filters(weight, inputs), 1, [True, False, False]
                )
            else:
                g = torch.mm(g, weight)  # (n, inputs)

    def _weight(self, i: int) -> Tensor:
        """The weights of layer i: (filters, channels, height, width) or (outputs, inputs)."""
        weight = self._weights[i]["W"]
        return _as_one_layer(weight) if isinstance(self.layout.layers[i], Dueling) else weight

    def _channels_last(self, states: Tensor, traced: bool) -> Tensor:
        """States in the network's precision and with their screens interleaved, in a buffer that stays.

        Bytes are interleaved before they become floats (0.2 ms for 32 states, not 0.5), and a fresh result of this
        size would cost page faults (0.6 ms more).
        """
        n, history, height, width = states.shape
        if (n, traced) not in self._inputs:
            self._inputs[n, traced] = self.weights.new_empty(n, height, width, history)
        return self._inputs[n, traced].copy_(torch.stack(states.unbind(1), dim=-1)).permute(0, 3, 1, 2)

    def _normalize(self, x: Tensor, i: int, training: bool) -> Sequence[Tensor]:
        """Batch normalization (Ioffe and Szegedy 2015) with Neon's constants: ε = 1e-3, averages move by a tenth."""
        mean, var, own = self.mean[i], self.var[i], self._weights[i]
        if not training:
            running = (mean.to(x.dtype), var.to(x.dtype))
            return [functional.batch_norm(x, *running, own["gamma"], own["beta"], eps=1e-3)]
        axes = [0, 2, 3] if x.dim() == 4 else [0]
        batch_var, batch_mean = torch.var_mean(x.to(mean.dtype), axes, correction=0)
        mean.mul_(0.9).add_(batch_mean, alpha=0.1)
        var.mul_(0.9).add_(batch_var, alpha=0.1)
        y, *saved = torch.native_batch_norm(x, own["gamma"], own["beta"], None, None, True, 0.0, 1e-3)
        return [y, x, *saved]

    def _normalize_backward(self, g: Tensor, i: int, normalized: Sequence[Tensor]) -> Tensor:
        x, mean, invstd = normalized
        own, mask = self._gradients[i], [True, True, True]
        g, of_gamma, of_beta = torch.ops.aten.native_batch_norm_backward(
            g, x, self._weights[i]["gamma"], None, None, mean, invstd, True, 1e-3, mask
        )
        own["gamma"].copy_(of_gamma)
        own["beta"].copy_(of_beta)
        return g

    def refresh(self) -> None:
        """Brings the weights computed with up to date with `master`."""
        if self.weights is not self.master:
            self.weights.copy_(self.master)

    def load(self, weights: NDArray[np.float64]) -> None:
        """Takes over flat weights."""
        self.master.copy_(torch.from_numpy(weights))
        self.refresh()

    def state(self) -> list[NDArray[Any]]:
        """Weights and running averages."""
        return [tensor.cpu().numpy() for tensor in (self.master, *self.mean, *self.var)]

    def restore(self, state: Sequence[NDArray[Any]]) -> None:
        """Takes over weights and running averages.

        Raises:
            ValueError: they are another network's.
        """
        for own, array in zip((self.master, *self.mean, *self.var), state, strict=True):
            if own.shape != array.shape:
                raise ValueError(f"an array of shape {array.shape} where {tuple(own.shape)} is needed")
            own.copy_(torch.tensor(array))
        self.refresh()

    def approach(self, other: QNetwork, rate: float = 1.0) -> None:
        """Goes a share of the way to the weights and running averages of another network; with 1 it is a copy."""
        mine, theirs = (self.master, *self.mean, *self.var), (other.master, *other.mean, *other.var)
        for own, their in zip(mine, theirs, strict=True):
            own.lerp_(their, rate)
        self.refresh()


_MANY = 8  # images from which on a convolution over all of each beats a matrix product


def _as_filters(weight: Tensor, images: Tensor) -> Tensor:
    """A fully connected layer's weight (outputs, inputs) as filters as large as the images it sees.

    The same sums, which oneDNN forms in 0.6 ms for 32 images where MKL takes 0.9 ms (AMD, two cores).
    """
    _, channels, height, width = images.shape
    return weight.view(-1, height, width, channels).permute(0, 3, 1, 2)


def _as_one_layer(streams: Tensor) -> Tensor:
    """The streams' weights (1 + actions, half), the value's first, as those of a plain layer, (actions, 2·half).

    Q_a = V + A_a − mean(A) is linear in what the streams see. So who reads the weights in a file need not know of it;
    the optimizer's arrays there are those of the streams.
    """
    value, advantages = streams[:1], streams[1:]
    return torch.cat([value.expand_as(advantages), advantages - advantages.mean(0)], dim=1)


def _stream_gradients(gradient: Tensor) -> Tensor:
    """The gradient of the streams' weights, (1 + actions, half), from that of `_as_one_layer`, (actions, 2·half)."""
    of_value, of_advantages = gradient.chunk(2, dim=1)
    return torch.cat([of_value.sum(0, keepdim=True), of_advantages - of_advantages.mean(0)])


def _as_streams(weights: NDArray[Any]) -> NDArray[Any]:
    """Weights of streams that come to the plain layer `weights`: in the first half all rows are the value's."""
    half = weights.shape[1] // 2
    return np.concatenate([weights[:1, :half], weights[:, half:]])


def _flat(images: Tensor) -> Tensor:
    """Images (n, channels, height, width) as rows (n, height · width · channels); rows stay rows."""
    return images.permute(0, 2, 3, 1).flatten(1) if images.dim() == 4 else images


def _convolution_backward(
    g: Tensor, inputs: Tensor, weight: Tensor, stride: int, wanted: list[bool]
) -> tuple[Tensor, Tensor]:
    """Gradients of a convolution's inputs and of its weight, as far as `wanted` (inputs, weight, bias)."""
    fixed: Any = ([stride, stride], [0, 0], [1, 1], False, [0, 0], 1)  # stride, padding, dilation, not transposed, …
    of_inputs, of_weight, _ = torch.ops.aten.convolution_backward(g, inputs, weight, None, *fixed, wanted)
    return of_inputs, of_weight
