"""The kinds of layers, the network of the Nature paper, and the shapes between its layers.

To add a kind, write a subclass of `BaseLayer` with `parameters` and `forward`, and put it into `q_layers`. It needs no
`backward`: autograd derives the gradients. Methods import torch themselves, because programs that only read snapshots
start a second faster without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simple_dqn.errors import OptionError
from simple_dqn.machine import available_memory

if TYPE_CHECKING:
    from torch import Tensor

    Tensors = dict[str, Tensor]  # by name

Shape = tuple[int, int, int]  # (channels, height, width); n units of a fully connected layer are (n, 1, 1)
Array = NDArray[Any]


class Parameter(NamedTuple):
    """An array that training changes: its shape and its first values."""

    shape: tuple[int, ...]  # filters are (filters, height, width, channels) here; `forward` gets channels second
    fill: float | None = None  # None: random numbers, scaled by fan-in (Glorot and Bengio 2010)


@dataclass(frozen=True)
class BaseLayer:
    """A layer. It holds no arrays: each method receives the network's arrays p."""

    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape of one output, for inputs of the shape `input_shape`."""
        return input_shape

    def parameters(self, input_shape: Shape) -> dict[str, Parameter]:
        """The arrays that training changes."""
        return {}

    def averages(self, input_shape: Shape) -> dict[str, tuple[int, ...]]:
        """The shapes of arrays that `forward` itself changes. They begin with zeros, in float32 or float64."""
        return {}

    def forward(self, p: Tensors, x: Tensor, training: bool) -> Tensor:
        """The outputs y, (batch, *output_shape), for inputs x, (batch, *input_shape) or (batch, units)."""
        raise NotImplementedError

    def backward(self, p: Tensors, x: Tensor, y: Tensor, g: Tensor, into: Tensors, first: bool) -> Tensor:
        """Only for speed: fill `into` with the gradients of p; return that of x, from the gradient g of y.

        `first`: the gradient of x is not needed. If a subclass overrides `forward` alone, autograd takes over.
        """
        raise NotImplementedError

    @cached_property
    def by_autograd(self) -> bool:
        """Whether autograd computes the gradients, because `forward` has no matching `backward`."""
        forward, backward = (
            next(kind for kind in type(self).__mro__ if name in vars(kind)) for name in ("forward", "backward")
        )
        return not issubclass(backward, forward)

    # In Neon's files

    def neon(self) -> tuple[str, dict[str, Any]]:
        """The type and configuration of the layer."""
        return type(self).__name__, {}

    def to_neon(self, array: Array, input_shape: Shape) -> Array:
        """A parameter, or an array of the optimizer for it, in the layout of Neon, where channels come first."""
        if array.ndim == 4:
            return array.transpose(3, 1, 2, 0).reshape(-1, len(array))  # (channels · height · width, filters)
        if array.ndim == 2:  # (outputs, height · width · channels)
            return array.reshape(len(array), *input_shape[1:], -1).transpose(0, 3, 1, 2).reshape(array.shape)
        return array[:, None] if array.ndim == 1 else array

    def from_neon(self, array: Array, input_shape: Shape, shape: tuple[int, ...]) -> Array:
        """The array of this `shape` that `to_neon` turned into `array`."""
        if len(shape) == 4:
            filters, *size, channels = shape
            return array.reshape(channels, *size, filters).transpose(3, 1, 2, 0)
        if len(shape) == 2:
            return array.reshape(len(array), -1, *input_shape[1:]).transpose(0, 2, 3, 1).reshape(shape)
        return array.reshape(shape)

    def weights_to_neon(self, weights: Array) -> Array:
        """Convert weights from the layout of `to_neon` to that of files."""
        return weights

    def weights_from_neon(self, weights: Array) -> Array:
        """Convert a file's weights to the layout that `from_neon` reads."""
        return weights


@dataclass(frozen=True)
class Conv(BaseLayer):
    """A convolution without bias and padding.

    With `pixels` the inputs are bytes and count from 0 to 1: the weights are divided by 255, because there are fewer
    weights than pixels.
    """

    filters: int
    size: int
    stride: int
    pixels: bool = False

    def output_shape(self, input_shape: Shape) -> Shape:
        height, width = ((n - self.size) // self.stride + 1 for n in input_shape[1:])
        return self.filters, height, width

    def parameters(self, input_shape: Shape) -> dict[str, Parameter]:
        return {"W": Parameter((self.filters, self.size, self.size, input_shape[0]))}

    def forward(self, p: Tensors, x: Tensor, training: bool) -> Tensor:
        from torch.nn import functional

        return functional.conv2d(x, p["W"] / 255 if self.pixels else p["W"], stride=self.stride)

    def backward(self, p: Tensors, x: Tensor, y: Tensor, g: Tensor, into: Tensors, first: bool) -> Tensor:
        import torch

        weight = p["W"] / 255 if self.pixels and not first else p["W"]
        half = self.pixels and first and g.dtype is torch.float16  # whose sums over bytes would overflow
        g = g / 255 if half else g
        of_x, of_weight = _convolution_backward(g, x, weight, self.stride, [not first, True, False])
        into["W"].copy_(of_weight / 255 if self.pixels and not half else of_weight)
        return of_x

    def neon(self) -> tuple[str, dict[str, Any]]:
        return "Convolution", {"fshape": (self.size, self.size, self.filters), "strides": self.stride}


@dataclass(frozen=True)
class Linear(BaseLayer):
    """A fully connected layer without bias. It sees an image as (height, width, channels)."""

    outputs: int

    def output_shape(self, input_shape: Shape) -> Shape:
        return self.outputs, 1, 1

    def parameters(self, input_shape: Shape) -> dict[str, Parameter]:
        return {"W": Parameter((self.outputs, math.prod(input_shape)))}

    def forward(self, p: Tensors, x: Tensor, training: bool) -> Tensor:
        from torch.nn import functional

        if x.dim() == 4 and len(x) >= _MANY:
            return functional.conv2d(x, _as_filters(p["W"], x)).flatten(1)  # (batch, outputs)
        return functional.linear(_flat(x), p["W"])  # (batch, outputs)

    def backward(self, p: Tensors, x: Tensor, y: Tensor, g: Tensor, into: Tensors, first: bool) -> Tensor:
        import torch

        torch.mm(g.t(), _flat(x), out=into["W"])
        if x.dim() == 4:
            filters = _as_filters(p["W"], x)
            return _convolution_backward(g[..., None, None], x, filters, 1, [True, False, False])[0]
        return torch.mm(g, p["W"])  # (batch, inputs)

    def neon(self) -> tuple[str, dict[str, Any]]:
        return "Linear", {"nout": self.outputs}


@dataclass(frozen=True)
class Dueling(BaseLayer):
    """The last layer in two streams, each fully connected to its half of the units before.

    The first half gives the state's value V, the other half each action's advantage A: Q_a = V + A_a − mean(A). Wang et
    al., "Dueling Network Architectures for Deep Reinforcement Learning", ICML 2016, arXiv:1511.06581.
    """

    outputs: int

    def output_shape(self, input_shape: Shape) -> Shape:
        return self.outputs, 1, 1

    def parameters(self, input_shape: Shape) -> dict[str, Parameter]:
        return {"W": Parameter((1 + self.outputs, math.prod(input_shape) // 2))}  # V's row comes first

    def forward(self, p: Tensors, x: Tensor, training: bool) -> Tensor:
        from torch.nn import functional

        return functional.linear(_flat(x), self._as_one_layer(p["W"]))  # (batch, outputs)

    def _as_one_layer(self, streams: Tensor) -> Tensor:
        """The weights, (outputs, inputs), of the plain layer that computes the same."""
        import torch

        value, advantages = streams[:1], streams[1:]
        return torch.cat([value.expand_as(advantages), advantages - advantages.mean(0)], dim=1)

    def neon(self) -> tuple[str, dict[str, Any]]:
        return "Linear", {"nout": self.outputs}

    def weights_to_neon(self, weights: Array) -> Array:
        """Return the weights of a plain layer, because other programs that read the file do not know streams."""
        import torch

        return np.asarray(self._as_one_layer(torch.from_numpy(weights)))

    def weights_from_neon(self, weights: Array) -> Array:
        half = weights.shape[1] // 2
        return np.concatenate([weights[:1, :half], weights[:, half:]])


@dataclass(frozen=True)
class BatchNorm(BaseLayer):
    """Batch normalization (Ioffe and Szegedy 2015) with the constants of Neon: ε is 1e-3, averages move by 0.1."""

    def parameters(self, input_shape: Shape) -> dict[str, Parameter]:
        return {"beta": Parameter(input_shape[:1], fill=0), "gamma": Parameter(input_shape[:1], fill=1)}

    def averages(self, input_shape: Shape) -> dict[str, tuple[int, ...]]:
        return {"gmean": input_shape[:1], "gvar": input_shape[:1]}

    def forward(self, p: Tensors, x: Tensor, training: bool) -> Tensor:
        import torch

        mean, var = p["gmean"], p["gvar"]
        if training:
            axes = [0, 2, 3] if x.dim() == 4 else [0]
            with torch.no_grad():
                batch_var, batch_mean = torch.var_mean(x.to(mean.dtype), axes, correction=0)
                mean.mul_(0.9).add_(batch_mean, alpha=0.1)
                var.mul_(0.9).add_(batch_var, alpha=0.1)
            y, p["mean"], p["invstd"] = torch.native_batch_norm(x, p["gamma"], p["beta"], None, None, True, 0.0, 1e-3)
            return y
        return torch.nn.functional.batch_norm(x, mean.to(x.dtype), var.to(x.dtype), p["gamma"], p["beta"], eps=1e-3)

    def backward(self, p: Tensors, x: Tensor, y: Tensor, g: Tensor, into: Tensors, first: bool) -> Tensor:
        import torch

        # `forward` left mean and invstd, those of the batch.
        of_x, of_gamma, of_beta = torch.ops.aten.native_batch_norm_backward(
            g, x, p["gamma"], None, None, p["mean"], p["invstd"], True, 1e-3, [True, True, True]
        )
        into["gamma"].copy_(of_gamma)
        into["beta"].copy_(of_beta)
        return of_x


@dataclass(frozen=True)
class Rectifier(BaseLayer):
    """max(x, 0), in place: a fresh result would cost page faults."""

    def forward(self, p: Tensors, x: Tensor, training: bool) -> Tensor:
        return x.relu_()

    def backward(self, p: Tensors, x: Tensor, y: Tensor, g: Tensor, into: Tensors, first: bool) -> Tensor:
        import torch

        of_x: Tensor = torch.ops.aten.threshold_backward(g, y, 0)  # g where y is positive, 0 elsewhere
        return of_x


Layers = Sequence[BaseLayer]

NATURE = (Conv(32, 8, 4, pixels=True), Conv(64, 4, 2), Conv(64, 3, 1), Linear(512))  # Mnih et al. 2015, Methods


def q_layers(num_actions: int, dueling: bool = False, batch_norm: bool = False) -> list[BaseLayer]:
    """All layers, from the states' pixels to the Q-values; each stream of a dueling network has its own hidden half."""
    *convolutions, hidden = NATURE
    layers: list[BaseLayer] = []
    for layer in (*convolutions, Linear(2 * hidden.outputs) if dueling else hidden):
        layers += [layer, BatchNorm(), Rectifier()] if batch_norm else [layer, Rectifier()]
    return [*layers, Dueling(num_actions) if dueling else Linear(num_actions)]


def shapes(layers: Layers, state_shape: Shape) -> list[Shape]:
    """The shape of a state, and of one output of each layer.

    Raises:
        OptionError: the screens are smaller than a convolution.
    """
    found = [state_shape]
    for layer in layers:
        found.append(layer.output_shape(found[-1]))
        if min(found[-1]) < 1:
            raise OptionError(
                f"screens of {state_shape[2]}x{state_shape[1]} are too small for the network: --screen_width "
                "and --screen_height must be at least 36"
            )
    return found


def shapes_in_files(layers: Layers, state_shape: Shape) -> list[tuple[str, dict[str, tuple[int, ...]]]]:
    """For each layer that Neon's files hold, its type and the shapes of its arrays there."""
    found = []
    for layer, input_shape in zip(layers, shapes(layers, state_shape), strict=False):
        arrays = {
            name: layer.weights_to_neon(layer.to_neon(np.zeros(parameter.shape, np.float32), input_shape)).shape
            for name, parameter in layer.parameters(input_shape).items()
        }
        arrays |= {name: (*shape, 1) for name, shape in layer.averages(input_shape).items()}
        if arrays:
            found.append((layer.neon()[0], arrays))
    return found


def require_memory(layers: Layers, state_shape: Shape, batch_size: int) -> None:
    """Raise OptionError if weights, gradients and activations do not fit in memory."""
    all_shapes = shapes(layers, state_shape)
    weights = sum(
        math.prod(parameter.shape)
        for layer, shape in zip(layers, all_shapes, strict=False)
        for parameter in layer.parameters(shape).values()
    )
    need = 4 * (6 * weights + 4 * sum(map(math.prod, all_shapes)) * batch_size)
    if need > available_memory():
        raise OptionError(
            f"--batch_size {batch_size} with screens of {state_shape[2]}x{state_shape[1]} needs about "
            f"{need / 2**30:.1f} GiB of memory for the network, more than there is: use smaller ones"
        )


_MANY = 8  # batch size from which one convolution is faster than a matrix product


def _as_filters(weight: Tensor, images: Tensor) -> Tensor:
    """A fully connected layer's weight (outputs, inputs) as filters as large as the images it sees.

    The sums are the same. oneDNN needs 0.6 ms for 32 images, MKL 0.9 ms (AMD, two cores).
    """
    _, channels, height, width = images.shape
    return weight.view(-1, height, width, channels).permute(0, 3, 1, 2)


def _flat(images: Tensor) -> Tensor:
    """Images (batch, channels, height, width) as rows (batch, height · width · channels); rows stay rows."""
    return images.permute(0, 2, 3, 1).flatten(1) if images.dim() == 4 else images


def _convolution_backward(
    g: Tensor, inputs: Tensor, weight: Tensor, stride: int, wanted: list[bool]
) -> tuple[Tensor, Tensor]:
    """The gradients of a convolution's inputs and weight, of those that `wanted` names (inputs, weight, bias)."""
    import torch

    fixed: Any = ([stride, stride], [0, 0], [1, 1], False, [0, 0], 1)  # stride, padding, dilation, not transposed, …
    of_inputs, of_weight, _ = torch.ops.aten.convolution_backward(g, inputs, weight, None, *fixed, wanted)
    return of_inputs, of_weight
