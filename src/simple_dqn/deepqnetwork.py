"""The Q-network and its learning rule: the options, the targets, the loss and one update.

Mnih et al., "Human-level control through deep reinforcement learning", Nature 518 (2015), doi:10.1038/nature14236. The
arithmetic, initial weights and optimizers are those of Nervana's Neon 2.6, on which the original simple_dqn ran. To
change what is learned, change `QLearning.target_parts` or `DeepQNetwork.loss`; autograd derives the gradient.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from simple_dqn.errors import OptionError
from simple_dqn.learning.layers import q_layers, require_memory
from simple_dqn.machine import num_cores
from simple_dqn.options import Options, option
from simple_dqn.replay_memory import Minibatch, ReplayMemory, TargetParts
from simple_dqn.saving.snapshot import Layer, require_fit
from simple_dqn.wording import count

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import functional

    from simple_dqn.learning import cuda
    from simple_dqn.learning.network import Pass

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DeepQNetworkOptions(Options):
    title = "Deep Q-learning network"
    learning_rate: float = option(0.00025, "learning rate of RMSProp and Adam", above=0, at_most=1000)
    learning_rate_end: float = option(0.0, "learning rate after --learning_rate_decay_steps", at_least=0, at_most=1000)
    learning_rate_decay_steps: int = option(
        0, "training steps of a linear change to --learning_rate_end; 0: constant", at_least=0, at_most=10**12
    )
    discount_rate: float = option(0.99, "discount: weight of a reward one step later", at_least=0, at_most=1)
    batch_size: int = option(32, "transitions in a minibatch", at_least=1, at_most=10**6)
    optimizer: str = option("rmsprop", "rule that updates the weights", choices=("rmsprop", "adam", "adadelta"))
    decay_rate: float = option(0.95, "decay of the averages in RMSProp and Adadelta", at_least=0, at_most=1)
    clip_error: float = option(1.0, "clip TD errors to ± this; 0: no clipping", at_least=0, at_most=1e30)
    min_reward: float = option(-1.0, "rewards are clipped to at least this", at_least=-1e30, at_most=1e30)
    max_reward: float = option(1.0, "rewards are clipped to at most this", at_least=-1e30, at_most=1e30)
    batch_norm: bool = option(False, "batch normalization in all layers but the last", kept="network")
    adam_epsilon: float = option(1e-8, "ε of Adam, added to the root; 1.5e-4 is common for Atari", above=0, at_most=1)
    double_dqn: bool = option(
        False, "double Q-learning: the online network selects the action, the target network evaluates it"
    )
    target_exploration_rate: float = option(
        0.0, "probability with which targets assume a random next action", at_least=0, at_most=1
    )
    target_rate: float = option(
        1.0,
        "share τ of the way that the target network moves to the online one every --target_steps. 1: copy. Below 1: "
        "the target network is an average and selects the actions",
        above=0,
        at_most=1,
    )
    dueling: bool = option(
        False, "dueling network: one stream for the state value, one for the action advantages", kept="network"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_reward > self.max_reward:
            raise OptionError(f"--min_reward {self.min_reward} is above --max_reward {self.max_reward}")
        if self.learning_rate_end and not self.learning_rate_decay_steps:
            raise OptionError(
                f"--learning_rate_end {self.learning_rate_end} needs --learning_rate_decay_steps, the steps until then"
            )

    def learning_rate_at(self, step: int) -> float:
        """The step size at a training step: it moves linearly to `learning_rate_end`, then stays."""
        if not self.learning_rate_decay_steps:
            return self.learning_rate
        progress = min(1.0, step / self.learning_rate_decay_steps)
        return self.learning_rate + progress * (self.learning_rate_end - self.learning_rate)


@dataclass(frozen=True)
class BackendOptions(Options):
    title = "Backend"
    library: str = option(
        "torch", "library that computes the network: PyTorch or Neon (docs/neon.md)", choices=("torch", "neon")
    )
    backend: str | None = option(
        None, "where the network runs; mkl with Neon only", choices=("cpu", "gpu", "mkl"),
        default_text="gpu if there is one, else cpu", kept="never",
    )  # fmt: skip
    device_id: int = option(0, "which GPU, counted from 0", at_least=0, at_most=1023, kept="never")
    datatype: str = option(
        "float32", "precision of the computation; weights stay float32; float16 and tf32: GPU only; float64: CPU only",
        choices=("float16", "bfloat16", "tf32", "float32", "float64"),
    )  # fmt: skip
    stochastic_round: bool | int = option(
        False, "stochastic rounding of weights to N bits; only with Neon on a GPU", optional_value=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backend == "gpu" and self.datatype == "float64":
            raise OptionError("--datatype float64 is for the CPU: add --backend cpu")
        if self.library == "neon":
            if self.datatype in ("bfloat16", "tf32"):
                raise OptionError(f"--datatype {self.datatype}: Neon has float16, float32 and float64")
            return
        if self.backend == "mkl":
            raise OptionError("--backend mkl: only Neon has it; add --library neon, or use --backend cpu")
        if self.stochastic_round is not False:
            raise OptionError("--stochastic_round: only Neon has it; add --library neon, or leave it out")
        if self.backend == "cpu" and self.datatype in ("float16", "tf32"):
            raise OptionError(f"--datatype {self.datatype} is for the GPU; on the CPU use bfloat16")


class TrainResult(NamedTuple):
    """The result of one update. `float()` and `np.asarray()` wait for the GPU, so call them only where needed."""

    cost: Any  # float: mean over the batch of the halved squared TD errors, before clipping
    errors: Any  # (batch,) float32: the TD errors, Q-value less target, before clipping


class Batch(NamedTuple):
    """A minibatch, as PyTorch's tensors on the network's device or as NumPy's arrays; the first axis is the batch."""

    prestates: Any  # (batch, history, height, width) uint8
    actions: Any  # (batch,) uint8
    returns: Any  # (batch,) n-step returns, or targets that the memory formed; float32 or the network's float64
    discounts: Any  # (batch,) likewise
    poststates: Any  # as prestates; (batch, 0, ...) if the memory formed the targets
    weights: Any  # (batch,) float32, importance of each transition


class QLearning:
    """What Q-learning computes with any library: the targets."""

    def __init__(
        self, num_actions: int, state_shape: tuple[int, int, int], options: DeepQNetworkOptions, backend: BackendOptions
    ) -> None:
        self.num_actions = num_actions
        self.state_shape = state_shape
        self.options = options
        self.train_iterations = 0
        self._dtype = np.float64 if backend.datatype == "float64" else np.float32

    def targets(self, batch: Batch) -> Any:
        """The targets y, (batch,): r + γ · max_a Q_target(s', a), or r if the episode ends."""
        if not batch.poststates.shape[1]:  # λ-returns, which the memory formed from the same parts
            return batch.returns
        returns, discounts, values = self.target_parts(batch)
        return returns + discounts * values

    def target_parts(self, batch: Batch) -> tuple[Any, Any, Any]:
        """The n-step return, discount and bootstrap value of each transition: three times (batch,).

        With `multi_step` n the return is the sum of n discounted rewards, the discount γ^n (Sutton 1988). The discount
        is 0 if the episode ends.
        """
        return batch.returns, batch.discounts, self.bootstrap_values(batch.poststates)

    def bootstrap_values(self, states: Any) -> Any:
        """The value of each of `states`, (n, history, height, width): max_a Q_target(s, a), (n,).

        In double Q-learning the online network selects the action, the target network evaluates it (van Hasselt, Guez
        and Silver 2016, arXiv:1509.06461). With `target_exploration_rate` ε the value is (1-ε)·max + ε·mean (Expected
        Sarsa: van Seijen et al. 2009).
        """
        q = self._q_values(states, target=True)  # (n, num_actions)
        selecting = self._q_values(states, target=False) if self.options.double_dqn else q
        best = self._q_of(q, selecting.argmax(1))  # (n,)
        epsilon = self.options.target_exploration_rate
        return best + epsilon * (q.mean(1) - best) if epsilon else best

    def _q_values(self, states: Any, target: bool) -> Any:
        """Q-values (n, num_actions) of the target network or the online network."""
        raise NotImplementedError

    def _q_of(self, q: Any, actions: Any) -> Any:
        """The Q-value of one action in each state, (n,), of Q-values (n, num_actions)."""
        raise NotImplementedError

    def _to_batch(self, batch: Minibatch) -> Batch:
        returns, discounts = n_step_returns(batch, self.options, self._dtype)
        return Batch(batch.prestates, batch.actions, returns, discounts, batch.poststates, batch.weights)


class DeepQNetwork(QLearning):
    """Q-values of the actions in a state, learned by Q-learning from minibatches against a target network.

    Args:
        num_actions: outputs of the network.
        state_shape: (history, height, width) of a state.
        options: the options of the learning rule.
        backend: device and precision.
        seed: of the initial weights, which `numpy.random.RandomState(seed)` draws.
        use_target: keep a separate target network. Without it the network is its own target.
        threads: at most this many on the CPU; None: one for each core.

    Attributes:
        num_actions, state_shape, options: as given.
        device: where it computes.
        train_iterations: updates so far.

    Raises:
        OptionError: the device is missing, the network does not fit the screens or the memory, or `target_rate` needs a
            target network.
    """

    def __init__(
        self,
        num_actions: int,
        state_shape: tuple[int, int, int],
        options: DeepQNetworkOptions,
        backend: BackendOptions,
        seed: int,
        use_target: bool = True,
        threads: int | None = None,
    ) -> None:
        if options.target_rate < 1 and not use_target:
            raise OptionError("--target_rate moves a target network: it needs a --target_steps above 0")
        global torch, functional, cuda  # imported only for a network, because that takes a second
        import torch
        from torch.nn import functional

        from simple_dqn.learning import cuda, network, optimizers

        super().__init__(num_actions, state_shape, options, backend)
        # Without a gradient the optimizers' averages decay to denormal numbers, which processors multiply some hundred
        # times more slowly (a step of RMSProp: 7.7 ms, not 1.3 ms). New threads inherit this setting.
        torch.set_flush_denormal(True)
        most = min(threads or num_cores(), torch.get_num_threads())  # PyTorch heeds OMP_NUM_THREADS, but no quota
        if most < torch.get_num_threads():
            torch.set_num_threads(most)
        self.device = find_device(backend, log=True)
        where = count(torch.get_num_threads(), "thread")
        datatype = backend.datatype
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # because streams and graphs belong to the current one
            where = torch.cuda.get_device_name(self.device)
            datatype = cuda.usable_datatype(datatype)
        logger.info("Backend: %s (%s), %s", self.device, where, datatype)
        layers = q_layers(num_actions, options.dueling, options.batch_norm)
        layout = network.Layout(layers, state_shape)
        require_memory(layers, state_shape, options.batch_size)
        tf32 = datatype == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        dtype = torch.float32 if tf32 else getattr(torch, datatype)
        rng = np.random.RandomState(seed)
        self._online = network.QNetwork(layout, layout.first_weights(rng), dtype, self.device)
        self._target = self._acting = self._online
        if use_target:
            self._target = network.QNetwork(layout, layout.first_weights(rng), dtype, self.device)
        if options.target_rate < 1:
            self._acting = self._target
            self._target.approach(self._online)  # because the average would long remember other first weights
        self._optimizer = optimizers.OPTIMIZERS[options.optimizer](
            self._online.master, self._online.weights, options.learning_rate, options.decay_rate, options.adam_epsilon
        )
        self._scale = optimizers.LossScale() if dtype is torch.float16 else None
        graph = self.device.type == "cuda" and not self._scale  # because the loss scale reads every gradient
        self._update = cuda.Graph(self._learn_from) if graph else self._learn_from

    def predict(self, states: NDArray[np.uint8]) -> NDArray[np.floating[Any]]:
        """Q-values (n, num_actions) of `states` (n, history, height, width), for any n; float32 or float64."""
        values: NDArray[np.floating[Any]] = self._acting.forward(self._tensor(states)).cpu().numpy()
        return values

    def target_arrays(self, batch: Minibatch) -> TargetParts:
        """The `target_parts` of `batch` as arrays."""
        parts = torch.stack(self.target_parts(self._to_batch(batch)))  # because each copy waits for the GPU
        return TargetParts(*parts.cpu().numpy())

    def train(self, batch: Minibatch) -> TrainResult:
        """One step of Q-learning on `batch`."""
        cost, errors = self._update(*self._to_batch(batch))
        self.train_iterations += 1
        if self.device.type == "cpu":
            return TrainResult(float(cost), errors.numpy())
        return TrainResult(cost, cuda.Later(errors))

    def _learn_from(self, *fields: Tensor) -> tuple[Tensor, Tensor]:
        """One step of Q-learning on the fields of a `Batch`; return cost and errors, as in `TrainResult`."""
        batch = Batch(*fields)
        y = self.targets(batch)  # (batch,)
        trace: list[Pass] = []
        q = self._online.forward(batch.prestates, trace).detach().requires_grad_()  # (batch, num_actions)
        loss, errors = self.loss(q, y, batch)
        self._descend(trace, *torch.autograd.grad(loss, q))
        return errors.square().mean() / 2, errors.float()

    def loss(self, q: Tensor, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss L and the TD errors δ, (batch,), of Q-values q, (batch, num_actions), and targets y, (batch,).

        δ = Q(s, a) − y and L = Σ w · H(δ), with importance weights w. H(δ) is δ²/2 up to |δ| = `clip_error` and a line
        from there on (Huber 1964), so that the gradient of Q(s, a) is w · δ, with δ clipped. The optimizer divides the
        gradient by the size of the batch.
        """
        q_taken = self._q_of(q, batch.actions.long())  # Q(s, a), (batch,)
        clip = self.options.clip_error or math.inf
        h = functional.huber_loss(q_taken, y, reduction="none", delta=clip)  # H(δ), (batch,)
        return h @ batch.weights.to(h.dtype), q_taken.detach() - y

    def _q_values(self, states: Tensor, target: bool) -> Tensor:
        return (self._target if target else self._online).forward(states)

    def _q_of(self, q: Tensor, actions: Tensor) -> Tensor:
        return q.gather(1, actions[:, None]).squeeze(1)  # its gradient is a view, that of [:, 0] a copy

    def _descend(self, trace: Sequence[Pass], gradient: Tensor) -> None:
        """One step of the optimizer, from the gradient of the loss with respect to Q, (batch, num_actions)."""
        network, scale = self._online, 1 / len(gradient)
        factor = self._scale.factor if self._scale else 1.0  # read first, because `fits` may change it
        network.backward(trace, gradient * factor if self._scale else gradient)
        if self._scale is None or self._scale.fits(network.gradient):
            self._optimizer.step(network.gradient, scale / factor)

    def anneal(self, step: int) -> None:
        """Set the learning rate for the updates of this training step."""
        if self.options.learning_rate_decay_steps:  # because each change costs a GPU some microseconds
            self._optimizer.set_learning_rate(self.options.learning_rate_at(step))

    def update_target_network(self) -> None:
        """Copy weights and averages of the online network to the target network.

        With `target_rate` τ the target network moves only that share of the way. So its weights are roughly the mean
        over the last 1/τ times (Polyak and Juditsky 1992, doi:10.1137/0330046; as a target: Lillicrap et al. 2016,
        arXiv:1509.02971). It also acts and is saved in snapshots, because averages play better than the network that
        every minibatch moves.
        """
        if self._target is not self._online:
            self._target.approach(self._online, self.options.target_rate)

    def layers(self) -> list[Layer]:
        """The acting network's weights and the optimizer's state, in Neon's layout."""
        states = self._optimizer.states if self._optimizer.used else []
        return self._online.layout.to_neon(self._acting, states)

    def load_layers(self, layers: Sequence[Layer], name: str, optimizer: str | None = None) -> None:
        """Load weights and optimizer state from the snapshot `name`; the target network gets the same weights.

        An optimizer of another kind starts from scratch. Without `optimizer`, the number of arrays tells its kind.

        Raises:
            SnapshotError: it belongs to another network; the message says what differs.
        """
        layout = self._online.layout
        require_fit(layers, layout.layers, self.state_shape, name)
        states = layout.from_neon(layers, self._online)
        if len(states) == len(self._optimizer.states) and optimizer in (None, self.options.optimizer):
            self._optimizer.load(states)
        elif states:
            logger.info("The optimizer in %s is not %s, so it starts from scratch", name, self.options.optimizer)
        self._target.approach(self._online)

    def state(self) -> dict[str, Any]:
        """The weights of both networks, the optimizer's state and the counters."""
        networks = [self._online] if self._target is self._online else [self._online, self._target]
        return dict(
            networks=[network.state() for network in networks],
            optimizer=self._optimizer.state(),
            train_iterations=self.train_iterations,
            scale=self._scale and [self._scale.factor, self._scale.fitting],
        )

    def restore(self, state: dict[str, Any]) -> None:
        """Continue exactly from a state. An optimizer of another kind starts from scratch."""
        networks = state["networks"]
        self._online.restore(networks[0])
        if self._target is not self._online:
            self._target.restore(networks[-1])
        if state["optimizer"]["kind"] == type(self._optimizer).__name__:
            self._optimizer.restore(state["optimizer"])
        else:
            logger.info("The optimizer was %s. The new one starts from scratch", state["optimizer"]["kind"])
        self.train_iterations = state["train_iterations"]
        if self._scale and state["scale"]:
            self._scale.factor, self._scale.fitting = state["scale"]

    def hold_screens(self, memory: ReplayMemory) -> None:
        """Move the screens of a `memory` that is still empty to the GPU, if it has room for them."""
        if self.device.type == "cpu":
            return
        need, spare = memory.screens.nbytes, 2**30  # bytes; the spare ones are for the network
        free = torch.cuda.mem_get_info(self.device)[0] - spare
        try:
            if need > free:
                raise torch.OutOfMemoryError
            memory.screens = cuda.DeviceScreens(memory.screens.shape, self.device)
            logger.info("The replay memory's screens are on the GPU")
        except torch.OutOfMemoryError:
            text = (
                "The replay memory's screens stay in main memory: they need %.1f GiB, and the GPU has %.1f GiB for them"
            )
            logger.info(text, need / 2**30, max(0, free) / 2**30)

    def _to_batch(self, batch: Minibatch) -> Batch:
        return Batch(*map(self._tensor, super()._to_batch(batch)))

    def _tensor(self, array: Any) -> Tensor:
        return array if isinstance(array, torch.Tensor) else cuda.to_device(array, self.device)


def n_step_returns(
    batch: Minibatch, options: DeepQNetworkOptions, dtype: DTypeLike
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The n-step return of each transition, and the discount of its bootstrap value; (batch,) of `dtype` each.

    They are Σ γ^k · r_k over the transition's steps, each reward clipped, and γ^steps, or 0 if the episode ends. If the
    memory has formed targets, they are the targets and 0.
    """
    if batch.targets is not None:
        return batch.targets.astype(dtype), np.zeros(len(batch.targets), dtype)
    steps = np.arange(batch.rewards.shape[1])
    rewards = batch.rewards.astype(np.float64).clip(options.min_reward, options.max_reward)  # (batch, multi_step)
    counts = options.discount_rate**steps * (steps < batch.steps[:, None])
    discounts = options.discount_rate**batch.steps * ~batch.terminals
    return (rewards * counts).sum(axis=1).astype(dtype), discounts.astype(dtype)


def find_device(backend: BackendOptions, log: bool = False) -> torch.device:
    """The device that was asked for; by default the GPU, if there is one.

    Args:
        backend: device and precision.
        log: log why a GPU is not used.

    Raises:
        OptionError: there is no such device.
    """
    import torch

    from simple_dqn.learning.cuda import count_gpus

    if backend.backend == "cpu" or (backend.backend is None and backend.datatype == "float64"):
        return torch.device("cpu")
    gpus, problem = count_gpus(backend.device_id)
    if gpus and backend.device_id >= gpus:
        raise OptionError(f"--device_id {backend.device_id}: this machine has {count(gpus, 'GPU')}, counted from 0")
    if gpus:
        return torch.device("cuda", backend.device_id)
    if backend.backend == "gpu":
        problem = problem or "PyTorch finds no GPU here"
        raise OptionError(f"--backend gpu: {problem}; use --backend cpu, or leave the option out")
    if backend.datatype in ("float16", "tf32"):
        problem = f" ({problem})" if problem else ""
        raise OptionError(
            f"--datatype {backend.datatype} is for the GPU, and none was found{problem}: use bfloat16 on the CPU"
        )
    if problem and log:
        logger.info("The GPU is not used: %s", problem)
    return torch.device("cpu")
