"""The Q-network and its learning rule. The only module that knows torch.

Mnih et al., "Human-level control through deep reinforcement learning", Nature 518 (2015), doi:10.1038/nature14236;
arithmetic, initial weights and optimizers as in Nervana's Neon 2.6, which the original simple_dqn ran on. To add double
Q-learning, change `DeepQNetwork._target_values`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simple_dqn.errors import OptionError, SnapshotError
from simple_dqn.options import Options, option
from simple_dqn.replay_memory import Minibatch, available_memory
from simple_dqn.snapshot import Layer

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import functional

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DeepQNetworkOptions(Options):
    title = "Deep Q-learning network"
    learning_rate: float = option(0.00025, "step size of RMSProp and Adam", above=0, at_most=1000)
    discount_rate: float = option(0.99, "worth of a reward one step later", at_least=0, at_most=1)
    batch_size: int = option(32, "transitions in a minibatch", at_least=1, at_most=10**6)
    optimizer: str = option("rmsprop", "rule that turns gradients into steps", choices=("rmsprop", "adam", "adadelta"))
    decay_rate: float = option(0.95, "decay of the averages in RMSProp and Adadelta", at_least=0, at_most=1)
    clip_error: float = option(
        1.0, "clip errors to ± this before back-propagation; 0: do not", at_least=0, at_most=1e30
    )
    min_reward: float = option(-1.0, "rewards below count as this in learning", at_least=-1e30, at_most=1e30)
    max_reward: float = option(1.0, "rewards above count as this in learning", at_least=-1e30, at_most=1e30)
    batch_norm: bool = option(False, "batch normalization in all layers but the last")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_reward > self.max_reward:
            raise OptionError(f"--min_reward {self.min_reward} is above --max_reward {self.max_reward}")


@dataclass(frozen=True)
class BackendOptions(Options):
    title = "Backend"
    backend: str | None = option(
        None, "where the network runs", choices=("cpu", "gpu"), default_text="gpu where there is one, else cpu"
    )
    device_id: int = option(0, "which GPU, counted from 0", at_least=0, at_most=1023)
    datatype: str = option(
        "float32",
        "precision of the network: float16 on the GPU only, float64 on the CPU only; weights are kept in float32",
        choices=("float16", "bfloat16", "float32", "float64"),
    )
    stochastic_round: bool | int = option(
        False, "stochastic rounding, which Neon has and PyTorch has not", optional_value=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stochastic_round is not False:
            raise OptionError("--stochastic_round: only Neon rounds stochastically, PyTorch cannot; leave it out")
        if self.backend == "cpu" and self.datatype == "float16":
            raise OptionError("--datatype float16 is for the GPU; on the CPU use bfloat16, which is fast there too")
        if self.backend == "gpu" and self.datatype == "float64":
            raise OptionError("--datatype float64 is for the CPU: add --backend cpu")


class Conv(NamedTuple):
    """A convolutional layer followed by a rectifier: no bias, no padding."""

    filters: int
    size: int
    stride: int


class Linear(NamedTuple):
    """A fully connected layer without bias, followed by a rectifier unless it is the last."""

    outputs: int


NATURE = (Conv(32, 8, 4), Conv(64, 4, 2), Conv(64, 3, 1), Linear(512))  # Mnih et al. 2015, Methods


class TrainResult(NamedTuple):
    """What one update tells."""

    cost: float  # mean over the batch of the halved squared errors, before clipping
    errors: NDArray[np.float32]  # (batch,), Q-value less target, before clipping


class DeepQNetwork:
    """Q-values of the actions in a state, learned by Q-learning from minibatches against a target network.

    Args:
        num_actions: outputs of the network.
        state_shape: (history, height, width) of a state.
        options: its options.
        backend: where and in which precision it runs.
        seed: of the initial weights, as `numpy.random.RandomState(seed)` draws them.
        use_target: keep a target network apart; without it the network is its own target.

    Raises:
        OptionError: the backend is not there, or the network does not fit the screens or the memory.
    """

    def __init__(
        self,
        num_actions: int,
        state_shape: tuple[int, int, int],
        options: DeepQNetworkOptions,
        backend: BackendOptions,
        seed: int,
        use_target: bool = True,
    ) -> None:
        global torch, functional  # a second to import: only once a network is wanted
        import torch
        from torch.nn import functional

        self.num_actions = num_actions
        self.state_shape = state_shape
        self.options = options
        self.train_iterations = 0
        self.device = _device(backend)
        layout = _Layout(num_actions, state_shape, options.batch_norm)
        layout.require_memory(options.batch_size)
        dtype = getattr(torch, backend.datatype)
        rng = np.random.RandomState(seed)
        self._online = _Network(layout, layout.xavier(rng), dtype, self.device)
        self._target = _Network(layout, layout.xavier(rng), dtype, self.device) if use_target else self._online
        self._optimizer = _OPTIMIZERS[options.optimizer](self._online.master, options)
        low = dtype is not self._online.master.dtype
        self._gradient = torch.empty_like(self._online.master) if low else None  # in the precision of the weights
        self._scale = _LossScale() if dtype is torch.float16 else None

    def predict(self, states: NDArray[np.uint8]) -> NDArray[np.floating[Any]]:
        """Q-values (n, num_actions) of `states` (n, history, height, width), for any n."""
        q = self._online.forward(self._tensor(states)).to(self._online.master.dtype)
        values: NDArray[np.floating[Any]] = q.cpu().numpy()
        return values

    def train(self, batch: Minibatch) -> TrainResult:
        """One step of Q-learning on `batch`."""
        targets = self._target_values(batch)  # (batch,)
        trace: list[_Pass] = []
        q = self._online.forward(self._tensor(batch.prestates), trace)  # (batch, num_actions)
        actions = self._tensor(batch.actions).long()[:, None]  # (batch, 1)
        errors = q.gather(1, actions)[:, 0].to(targets.dtype) - targets  # (batch,)
        clip = self.options.clip_error or math.inf
        deltas = errors.clamp(-clip, clip) * self._tensor(batch.weights)  # (batch,)
        self._descend(trace, torch.zeros_like(q).scatter_(1, actions, deltas[:, None].to(q.dtype)))
        self.train_iterations += 1
        return TrainResult(float(errors.square().mean() / 2), errors.float().cpu().numpy())

    def _target_values(self, batch: Minibatch) -> Tensor:
        """What the Q-value of each action taken should have been, (batch,): r, or r + γ·max_a Q_target(s', a)."""
        postq = self._target.forward(self._tensor(batch.poststates))  # (batch, num_actions)
        best = postq.max(dim=1).values.to(self._online.master.dtype)  # (batch,)
        rewards = self._tensor(batch.rewards).to(best.dtype).clamp(self.options.min_reward, self.options.max_reward)
        return rewards + self.options.discount_rate * best * ~self._tensor(batch.terminals)

    def _descend(self, trace: Sequence[_Pass], deltas: Tensor) -> None:
        """Takes an optimizer's step down the gradient that `deltas`, (batch, num_actions), send back."""
        network, scale = self._online, 1 / len(deltas)
        network.backward(trace, deltas if self._scale is None else deltas * self._scale.factor)
        gradient = network.gradient if self._gradient is None else self._gradient.copy_(network.gradient)
        if self._scale is None:
            self._optimizer.step(gradient, scale)
        elif self._scale.fits(gradient):
            self._optimizer.step(gradient, scale / self._scale.factor)
        network.refresh()

    def update_target_network(self) -> None:
        """Copies the weights, and the running averages of batch norm, to the target network."""
        if self._target is not self._online:
            self._target.copy(self._online)

    def layers(self) -> list[Layer]:
        """Its weights and the optimizer's state, in Neon's layout."""
        states = self._optimizer.states if self._optimizer.used else []
        return self._online.layout.to_neon(self._online, states)

    def load_layers(self, layers: Sequence[Layer], name: str) -> None:
        """Takes over weights and optimizer state from the snapshot `name`; the target network gets the same weights.

        Raises:
            SnapshotError: they are another network's; the message says what differs.
        """
        layout = self._online.layout
        differences = layout.differences(layers)
        if differences:
            raise SnapshotError(f"{name} does not fit: {'; '.join(differences)}")
        if not all(np.isfinite(array).all() for layer in layers for array in layer.params.values()):
            raise SnapshotError(f"{name} is damaged: it holds weights that are no numbers")
        states = layout.from_neon(layers, self._online)
        if len(states) == len(self._optimizer.states):
            self._optimizer.load(states)
        elif states:
            logger.info("The optimizer in %s is not %s: it starts afresh", name, self.options.optimizer)
        self.update_target_network()

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)


class _Part(NamedTuple):
    """Where one array of trainable numbers lies in a flat buffer."""

    name: str  # W, beta or gamma
    shape: tuple[int, ...]  # as stored: (filters, height, width, channels), (outputs, inputs) or (n,)
    start: int

    @property
    def stop(self) -> int:
        return self.start + math.prod(self.shape)


class _Layout:
    """The shapes of the network's layers, and their place in flat buffers and in Neon's files.

    Channels come last in memory, which is how the CPU and the GPU convolve fastest (update 11.5 ms against 14.9 ms on
    two cores); Neon's files have them first.
    """

    def __init__(self, num_actions: int, state_shape: tuple[int, int, int], batch_norm: bool) -> None:
        self.state_shape = state_shape
        self.batch_norm = batch_norm
        self.layers: tuple[Conv | Linear, ...] = (*NATURE, Linear(num_actions))
        self.parts: list[_Part] = []
        self.widths: list[int] = []  # channels or units that leave each layer
        self.activations = math.prod(state_shape)  # numbers that one state leaves on its way through
        channels, height, width = state_shape
        for layer in self.layers:
            if isinstance(layer, Conv):
                shape: tuple[int, ...] = (layer.filters, layer.size, layer.size, channels)
                channels = layer.filters
                height, width = ((n - layer.size) // layer.stride + 1 for n in (height, width))
                self.flattened = (channels, height, width)  # what the first fully connected layer sees
                if height < 1 or width < 1:
                    raise OptionError(
                        f"screens of {state_shape[2]}x{state_shape[1]} are too small for the network: --screen_width "
                        "and --screen_height must be at least 36"
                    )
            else:
                shape = (layer.outputs, channels * height * width)
                channels, height, width = layer.outputs, 1, 1
            self.widths.append(channels)
            self.activations += channels * height * width
            self._add("W", shape)
            if batch_norm and layer is not self.layers[-1]:
                self._add("beta", (channels,))
                self._add("gamma", (channels,))
        self.size = self.parts[-1].stop

    def _add(self, name: str, shape: tuple[int, ...]) -> None:
        self.parts.append(_Part(name, shape, self.parts[-1].stop if self.parts else 0))

    def require_memory(self, batch_size: int) -> None:
        """Raises OptionError if weights, gradients and activations cannot fit in memory."""
        need = 4 * (6 * self.size + 4 * self.activations * batch_size)
        if need > available_memory():
            raise OptionError(
                f"--batch_size {batch_size} with screens of {self.state_shape[2]}x{self.state_shape[1]} needs about "
                f"{need / 2**30:.1f} GiB of memory for the network, more than there is: use smaller ones"
            )

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

    def differences(self, layers: Sequence[Layer]) -> list[str]:
        """In the user's words, what keeps the layers of a snapshot from fitting this network."""
        weights = [layer.params["W"] for layer in layers if layer.type != "BatchNorm"]
        if len(weights) != len(self.layers):
            return [f"it has {len(weights)} layers with weights, the network {len(self.layers)}"]
        found = []
        if (len(weights) < len(layers)) != self.batch_norm:
            found.append("it was made " + ("without" if self.batch_norm else "with") + " --batch_norm true")
        if len(weights[-1]) != self.layers[-1][0]:
            found.append(f"it has {len(weights[-1])} actions, the game {self.layers[-1][0]}")
        own = [(math.prod(part.shape[1:]), part.shape[0]) for part in self.parts if part.name == "W"]
        own = [shape if isinstance(layer, Conv) else shape[::-1] for shape, layer in zip(own, self.layers, strict=True)]
        if weights[0].shape != own[0]:
            found.append(f"its states have {len(weights[0]) / 64:g} screens, here {self.state_shape[0]}")
        if weights[3].shape != own[3]:
            found.append(f"its screens are not {self.state_shape[2]}x{self.state_shape[1]}")
        if not found and [w.shape for w in weights] != own:
            found.append(f"its weights have shapes {[w.shape for w in weights]}, not {own}")
        return found

    def to_neon(self, network: _Network, states: Sequence[Tensor]) -> list[Layer]:
        """The layers of a snapshot, of the network's weights and of flat optimizer states."""
        flats = [flat.cpu().numpy() for flat in (network.master, *states)]
        values = [[self._to_neon(flat, part) for flat in flats] for part in self.parts]
        layers, own = [], iter(values)
        for i, layer in enumerate(self.layers):
            weights, *optimizer = next(own)
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

    def from_neon(self, layers: Sequence[Layer], network: _Network) -> list[NDArray[np.float64]]:
        """Puts a snapshot's weights into `network` and returns the optimizer's flat states, if it has any."""
        arrays: list[list[Any]] = []  # for each part, its weights and then its states
        for layer in layers:
            if layer.type == "BatchNorm":
                arrays += [[layer.params[key], *own] for key, own in zip(("beta", "gamma"), layer.states, strict=True)]
            else:
                arrays.append([layer.params["W"], *layer.states])
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

    def _from_neon(self, array: NDArray[Any], part: _Part) -> NDArray[np.float64]:
        """Flat: (C·R·S, K) becomes (K, R, S, C), and the inputs of the first fully connected layer (H, W, C)."""
        array = np.asarray(array, np.float64)
        if len(part.shape) == 4:
            filters, height, width, channels = part.shape
            return array.reshape(channels, height, width, filters).transpose(3, 1, 2, 0).ravel()
        if self._sees_image(part):
            return array.reshape(-1, *self.flattened).transpose(0, 2, 3, 1).ravel()
        return array.ravel()

    def _to_neon(self, flat: NDArray[Any], part: _Part) -> NDArray[Any]:
        stored = flat[part.start : part.stop].reshape(part.shape)
        if len(part.shape) == 4:
            return np.ascontiguousarray(stored.transpose(3, 1, 2, 0)).reshape(-1, part.shape[0])
        if self._sees_image(part):
            channels, height, width = self.flattened
            image = stored.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
            return np.ascontiguousarray(image).reshape(part.shape)
        return stored[:, None].copy() if len(part.shape) == 1 else stored.copy()

    def _sees_image(self, part: _Part) -> bool:
        first = next(part for part in self.parts if len(part.shape) == 2)
        return part is first


class _Pass(NamedTuple):
    """What a layer's forward pass leaves for its backward pass."""

    inputs: Tensor
    output: Tensor  # after the rectifier
    normalized: Sequence[Tensor]  # batch norm's input, mean and 1/sqrt(var + ε); empty without batch norm


class _Network:
    """One set of weights, in one flat buffer, and the way through it and back.

    Where the network computes in low precision, `master` holds the weights in float32 and a copy is computed with.
    Back-propagation is written out: gradients go straight to their place in one buffer, where autograd would clear,
    allocate, add and copy (13 % of an update of 32 states on two cores).
    """

    def __init__(self, layout: _Layout, weights: NDArray[np.float64], dtype: torch.dtype, device: torch.device) -> None:
        self.layout = layout
        master = torch.float64 if dtype is torch.float64 else torch.float32
        self.master = torch.from_numpy(weights).to(device, master)
        self._computed = self.master if dtype is master else self.master.to(dtype)
        self.gradient = torch.zeros_like(self._computed)
        self._weights, self._gradients = layout.views(self._computed), layout.views(self.gradient)
        self._inputs: dict[int, Tensor] = {}  # by batch size
        widths = layout.widths[:-1] if layout.batch_norm else []
        self.mean = [torch.zeros(n, dtype=master, device=device) for n in widths]  # running, for inference
        self.var = [torch.zeros(n, dtype=master, device=device) for n in widths]

    def forward(self, states: Tensor, trace: list[_Pass] | None = None) -> Tensor:
        """Q-values (n, num_actions) of uint8 states (n, history, height, width); training, if it is traced."""
        x = self._channels_last(states)
        last = len(self.layout.layers) - 1
        for i, layer in enumerate(self.layout.layers):
            weight, inputs = self._weights[i]["W"], x
            normalized: Sequence[Tensor] = ()
            if isinstance(layer, Conv):
                weight = weight / 255 if i == 0 else weight  # cheaper than dividing the states
                x = functional.conv2d(inputs, weight, stride=layer.stride)  # (n, filters, height, width)
            elif x.dim() == 4 and len(x) >= _MANY:
                x = functional.conv2d(inputs, _as_filters(weight, inputs)).flatten(1)  # (n, outputs)
            else:
                x = functional.linear(_flat(inputs), weight)  # (n, outputs)
            if self.layout.batch_norm and i < last:
                x, *normalized = self._normalize(x, i, training=trace is not None)
            x = x.relu_() if i < last else x
            if trace is not None:
                trace.append(_Pass(inputs, x, normalized))
        return x

    def backward(self, trace: Sequence[_Pass], deltas: Tensor) -> None:
        """Fills `gradient` with the sum over the batch of the gradients of Σ deltas · Q, deltas (n, num_actions)."""
        g = deltas
        for i in reversed(range(len(trace))):
            layer, (inputs, output, normalized) = self.layout.layers[i], trace[i]
            weight, gradient = self._weights[i]["W"], self._gradients[i]["W"]
            if i < len(trace) - 1:
                # Through the rectifier, where its output is positive.
                g = torch.ops.aten.threshold_backward(g, output, 0)
            if normalized:
                g = self._normalize_backward(g, i, normalized)
            if isinstance(layer, Conv):
                g, of_weight = _convolution_backward(g, inputs, weight, layer.stride, [i > 0, True, False])
                gradient.copy_(of_weight if i else of_weight / 255)
                continue
            torch.mm(g.t(), _flat(inputs), out=gradient)
            if inputs.dim() == 4:
                g, _ = _convolution_backward(
                    g[..., None, None], inputs, _as_filters(weight, inputs), 1, [True, False, False]
                )
            else:
                g = torch.mm(g, weight)  # (n, inputs)

    def _channels_last(self, states: Tensor) -> Tensor:
        """States in the network's precision and with their screens interleaved, in a buffer that stays.

        Bytes are interleaved before they become floats (0.2 ms for 32 states, not 0.5), and a fresh result of this
        size would cost page faults (0.6 ms more).
        """
        n, history, height, width = states.shape
        if n not in self._inputs:
            self._inputs[n] = self._computed.new_empty(n, height, width, history)
        return self._inputs[n].copy_(torch.stack(states.unbind(1), dim=-1)).permute(0, 3, 1, 2)

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
        if self._computed is not self.master:
            self._computed.copy_(self.master)

    def load(self, weights: NDArray[np.float64]) -> None:
        """Takes over flat weights."""
        self.master.copy_(torch.from_numpy(weights))
        self.refresh()

    def copy(self, other: _Network) -> None:
        """Takes over the weights and running averages of another network."""
        mine, theirs = (self.master, *self.mean, *self.var), (other.master, *other.mean, *other.var)
        for own, their in zip(mine, theirs, strict=True):
            own.copy_(their)
        self.refresh()


_MANY = 8  # images from which on a convolution over all of each beats a matrix product


def _as_filters(weight: Tensor, images: Tensor) -> Tensor:
    """A fully connected layer's weight (outputs, inputs) as filters as large as the images it sees.

    The same sums, which oneDNN forms in 0.6 ms for 32 images where MKL takes 0.9 ms (AMD, two cores).
    """
    _, channels, height, width = images.shape
    return weight.view(-1, height, width, channels).permute(0, 3, 1, 2)


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


class _Optimizer:
    """A rule that moves flat weights against a flat gradient; formulas as in Neon 2.6.

    One pass an operation over all weights at once, into buffers that stay: 1.7 million numbers are too many for the
    allocator to keep, and page faults on fresh ones cost more than the arithmetic (6.1 ms a step, not 0.8).
    """

    num_states = 0

    def __init__(self, weights: Tensor, options: DeepQNetworkOptions) -> None:
        self.weights = weights
        self.buffer = torch.empty_like(weights)
        self.learning_rate, self.decay_rate = options.learning_rate, options.decay_rate
        self.states = [torch.zeros_like(weights) for _ in range(self.num_states)]
        self.used = False  # a snapshot from before the first update holds no states

    def step(self, gradient: Tensor, scale: float) -> None:
        """Moves the weights; the gradient g of the formulas is `scale` times `gradient`."""
        raise NotImplementedError

    def load(self, states: Sequence[NDArray[np.float64]]) -> None:
        """Takes over flat states."""
        for own, state in zip(self.states, states, strict=True):
            own.copy_(torch.from_numpy(state))
        self.used = True

    def _average(self, state: Tensor, value: Tensor, scale: float, decay: float) -> None:
        """state ← decay · state + (1 − decay) · (scale · value)²"""
        state.mul_(decay).addcmul_(value, value, value=(1 - decay) * scale**2)


class RMSProp(_Optimizer):
    """s ← ρ·s + (1−ρ)·g²; w ← w − α·g / (sqrt(s + ε) + ε), ε = 1e-6 (Tieleman and Hinton 2012, as Neon has it)."""

    num_states = 1

    def step(self, gradient: Tensor, scale: float) -> None:
        (s,) = self.states
        self._average(s, gradient, scale, self.decay_rate)
        root = torch.add(s, 1e-6, out=self.buffer).sqrt_().add_(1e-6)
        self.weights.addcdiv_(gradient, root, value=-self.learning_rate * scale)
        self.used = True


class Adam(_Optimizer):
    """m, v ← averages of g, g²; w ← w − α·sqrt(1−β2^t)/(1−β1^t) · m / (sqrt(v) + ε) (Kingma and Ba 2015)."""

    num_states = 2
    steps = 0  # t; not in Neon's snapshots, so it counts from the load

    def step(self, gradient: Tensor, scale: float) -> None:
        m, v = self.states
        self.steps += 1
        m.mul_(0.9).add_(gradient, alpha=0.1 * scale)
        self._average(v, gradient, scale, 0.999)
        rate = self.learning_rate * math.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps)
        self.weights.addcdiv_(m, torch.sqrt(v, out=self.buffer).add_(1e-8), value=-rate)
        self.used = True


class Adadelta(_Optimizer):
    """s ← average of g²; d = sqrt((u+ε)/(s+ε))·g; u ← average of d²; w ← w − d, ε = 1e-6 (Zeiler 2012)."""

    num_states = 3

    def step(self, gradient: Tensor, scale: float) -> None:
        s, u, d = self.states
        self._average(s, gradient, scale, self.decay_rate)
        torch.add(u, 1e-6, out=d).div_(torch.add(s, 1e-6, out=self.buffer)).sqrt_().mul_(gradient).mul_(scale)
        self._average(u, d, 1.0, self.decay_rate)
        self.weights.sub_(d)
        self.used = True


_OPTIMIZERS = {"rmsprop": RMSProp, "adam": Adam, "adadelta": Adadelta}


class _LossScale:
    """Dynamic loss scaling for float16 (Micikevicius et al. 2018): gradients too small for it are lifted into range."""

    factor = 1024.0
    _fitting = 0  # updates in a row

    def fits(self, gradient: Tensor) -> bool:
        """Whether the scaled gradient stayed finite; where not, the update is skipped and the scale halved."""
        if not bool(torch.isfinite(gradient).all()):
            self.factor /= 2
            self._fitting = 0
            return False
        self._fitting += 1
        if self._fitting % 2000 == 0:
            self.factor *= 2
        return True


def _device(backend: BackendOptions) -> torch.device:
    """The device asked for; where none was, the GPU if there is one, and the log says which it is."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wanted = backend.backend or ("gpu" if gpus and backend.datatype != "float64" else "cpu")
    if wanted == "cpu":
        if backend.datatype == "float16":
            raise OptionError("--datatype float16 is for the GPU, and none was found: use bfloat16 on the CPU")
        logger.info("Backend: cpu (%d threads), %s", torch.get_num_threads(), backend.datatype)
        return torch.device("cpu")
    if not gpus:
        raise OptionError("--backend gpu: PyTorch finds no GPU here; use --backend cpu, or leave the option out")
    if backend.device_id >= gpus:
        raise OptionError(f"--device_id {backend.device_id}: there are {gpus} GPUs, counted from 0")
    logger.info(
        "Backend: gpu %d (%s), %s", backend.device_id, torch.cuda.get_device_name(backend.device_id), backend.datatype
    )
    return torch.device("cuda", backend.device_id)
