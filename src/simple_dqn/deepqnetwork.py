"""The Q-network and its learning rule. With the modules that only it uses, the one place that knows torch.

Mnih et al., "Human-level control through deep reinforcement learning", Nature 518 (2015), doi:10.1038/nature14236;
arithmetic, initial weights and optimizers as in Nervana's Neon 2.6, which the original simple_dqn ran on. To learn
something else, change `DeepQNetwork._outlook`. How the layers and the optimizers compute is in network.py and
optimizers.py.
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
from simple_dqn.replay_memory import Minibatch, Outlook, ReplayMemory
from simple_dqn.saving.snapshot import Layer, require_fit

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from simple_dqn.learning import gpu
    from simple_dqn.learning.network import Pass

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DeepQNetworkOptions(Options):
    title = "Deep Q-learning network"
    learning_rate: float = option(0.00025, "step size of RMSProp and Adam", above=0, at_most=1000)
    learning_rate_end: float = option(0.0, "step size after --learning_rate_decay_steps", at_least=0, at_most=1000)
    learning_rate_decay_steps: int = option(
        0, "training steps until --learning_rate_end, linearly; 0: constant", at_least=0, at_most=10**12
    )
    discount_rate: float = option(0.99, "worth of a reward one step later", at_least=0, at_most=1)
    batch_size: int = option(32, "transitions in a minibatch", at_least=1, at_most=10**6)
    optimizer: str = option("rmsprop", "rule that turns gradients into steps", choices=("rmsprop", "adam", "adadelta"))
    decay_rate: float = option(0.95, "decay of the averages in RMSProp and Adadelta", at_least=0, at_most=1)
    clip_error: float = option(
        1.0, "clip errors to ± this before back-propagation; 0: do not", at_least=0, at_most=1e30
    )
    min_reward: float = option(-1.0, "rewards below count as this in learning", at_least=-1e30, at_most=1e30)
    max_reward: float = option(1.0, "rewards above count as this in learning", at_least=-1e30, at_most=1e30)
    batch_norm: bool = option(False, "batch normalization in all layers but the last", kept="network")
    adam_epsilon: float = option(1e-8, "added to the root in Adam; 1.5e-4 is common with Atari", above=0, at_most=1)
    double_dqn: bool = option(
        False, "double Q-learning: the network chooses the action whose Q-value the target network tells"
    )
    target_exploration_rate: float = option(
        0.0, "share of random actions that targets expect of the future; 0: none", at_least=0, at_most=1
    )
    target_rate: float = option(
        1.0,
        "how far the target network moves to the network every --target_steps; 1: it is a copy; below, an average that "
        "acts, too",
        above=0,
        at_most=1,
    )
    dueling: bool = option(
        False, "dueling network: one stream for the state's value, one for the actions' advantages", kept="network"
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
        """The step size at a training step: linear from `learning_rate` to `learning_rate_end`, then constant."""
        if not self.learning_rate_decay_steps:
            return self.learning_rate
        progress = min(1.0, step / self.learning_rate_decay_steps)
        return self.learning_rate + progress * (self.learning_rate_end - self.learning_rate)


@dataclass(frozen=True)
class BackendOptions(Options):
    title = "Backend"
    library: str = option(
        "torch", "what computes the network: PyTorch, or Neon (docs/neon.md)", choices=("torch", "neon")
    )
    backend: str | None = option(
        None, "where the network runs; mkl with Neon only", choices=("cpu", "gpu", "mkl"),
        default_text="gpu where there is one, else cpu", kept="never",
    )  # fmt: skip
    device_id: int = option(0, "which GPU, counted from 0", at_least=0, at_most=1023, kept="never")
    datatype: str = option(
        "float32",
        "precision of the network; float16 and tf32 on the GPU only, float64 on the CPU only; weights stay float32",
        choices=("float16", "bfloat16", "tf32", "float32", "float64"),
    )
    stochastic_round: bool | int = option(
        False, "stochastic rounding to so many bits, which Neon has on the GPU and PyTorch has not", optional_value=True
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
            raise OptionError(
                "--stochastic_round: only Neon rounds stochastically, PyTorch cannot: leave it out, or add "
                "--library neon"
            )
        if self.backend == "cpu" and self.datatype in ("float16", "tf32"):
            raise OptionError(
                f"--datatype {self.datatype} is for the GPU; on the CPU use bfloat16, which is fast there too"
            )


_SPARE = 2**30  # bytes of the GPU's memory left for the network


class TrainResult(NamedTuple):
    """What one update tells. On the GPU nobody waits for it: `float()` and `np.asarray()` do, where it is needed."""

    cost: Any  # float: mean over the batch of the halved squared errors, before clipping
    errors: Any  # (batch,) float32, Q-value less target, before clipping


class Batch(NamedTuple):
    """A minibatch where the network is; the first axis is the batch."""

    prestates: Tensor  # (batch, history, height, width) uint8
    actions: Tensor  # (batch,) uint8
    returns: Tensor  # (batch,) as `discounted` gives them, float32; float64 where the network is
    discounts: Tensor  # (batch,) likewise
    poststates: Tensor  # as prestates; empty where the returns are all of the targets
    weights: Tensor  # (batch,) float32


class DeepQNetwork:
    """Q-values of the actions in a state, learned by Q-learning from minibatches against a target network.

    Args:
        num_actions: outputs of the network.
        state_shape: (history, height, width) of a state.
        options: its options.
        backend: where and in which precision it runs.
        seed: of the initial weights, as `numpy.random.RandomState(seed)` draws them.
        use_target: keep a target network apart; without it the network is its own target.
        threads: at most this many on the CPU; None: one for each core.

    Raises:
        OptionError: the backend is not there, the network does not fit the screens or the memory, or there is no target
            network for `target_rate` to move.
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
        global torch, gpu  # a second to import: only once a network is wanted
        import torch

        from simple_dqn.learning import gpu, network, optimizers

        self.num_actions = num_actions
        self.state_shape = state_shape
        self.options = options
        self.train_iterations = 0
        # The optimizers' averages of what no gradient reaches any more decay into numbers that processors multiply some
        # hundred times more slowly (a step of RMSProp: 7.7 ms, not 1.3). Other threads take this over as they start.
        torch.set_flush_denormal(True)
        most = min(threads or num_cores(), torch.get_num_threads())  # PyTorch heeds OMP_NUM_THREADS, but no quota
        if most < torch.get_num_threads():
            torch.set_num_threads(most)
        self.device = find_device(backend)
        where = f"{torch.get_num_threads()} threads"
        if self.device.type == "cuda":
            where = torch.cuda.get_device_name(self.device)
        logger.info("Backend: %s (%s), %s", self.device, where, backend.datatype)
        layout = network.Layout(q_layers(num_actions, options.dueling), state_shape, options.batch_norm)
        require_memory(layout.layers, state_shape, options.batch_size)
        tf32 = backend.datatype == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        dtype = torch.float32 if tf32 else getattr(torch, backend.datatype)
        rng = np.random.RandomState(seed)
        self._online = network.QNetwork(layout, layout.xavier(rng), dtype, self.device)
        self._target = network.QNetwork(layout, layout.xavier(rng), dtype, self.device) if use_target else self._online
        self._acting = self._online
        if options.target_rate < 1:
            self._acting = self._target
            self._target.approach(self._online)  # its own first weights would be part of the average for long
        self._optimizer = optimizers.OPTIMIZERS[options.optimizer](self._online.master, self._online.weights, options)
        self._scale = optimizers.LossScale() if dtype is torch.float16 else None
        graph = self.device.type == "cuda" and not self._scale  # which has to look at every gradient
        self._learn = gpu.Graph(self._learn_from) if graph else self._learn_from

    def predict(self, states: NDArray[np.uint8]) -> NDArray[np.floating[Any]]:
        """Q-values (n, num_actions) of `states` (n, history, height, width), for any n."""
        values: NDArray[np.floating[Any]] = self._acting.forward(self._tensor(states)).cpu().numpy()
        return values

    def outlook(self, batch: Minibatch) -> Outlook:
        """What the targets of `batch` are made of."""
        return Outlook(*(part.cpu().numpy() for part in self._outlook(self._here(batch))))

    def train(self, batch: Minibatch) -> TrainResult:
        """One step of Q-learning on `batch`."""
        cost, errors = self._learn(self._here(batch))
        self.train_iterations += 1
        if self.device.type == "cpu":
            return TrainResult(float(cost), errors.numpy())
        return TrainResult(cost, gpu.Later(errors))

    def _learn_from(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """One step of Q-learning; returns its cost and errors, as in `TrainResult`."""
        targets = self._target_values(batch)  # (batch,)
        trace: list[Pass] = []
        q = self._online.forward(batch.prestates, trace)  # (batch, num_actions)
        actions = batch.actions.long()[:, None]  # (batch, 1)
        errors = q.gather(1, actions)[:, 0] - targets  # (batch,)
        clip = self.options.clip_error or math.inf
        deltas = errors.clamp(-clip, clip) * batch.weights  # (batch,)
        self._descend(trace, torch.zeros_like(q).scatter_(1, actions, deltas[:, None]))
        return errors.square().mean() / 2, errors.float()

    def _target_values(self, batch: Batch) -> Tensor:
        """What each action taken should have been worth, (batch,): r + γ·max_a Q_target(s', a); at an end r."""
        if not batch.poststates.numel():  # λ-returns, which the memory has formed of the same outlooks
            return batch.returns
        returns, discounts, values = self._outlook(batch)
        return returns + discounts * values

    def _outlook(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """What targets are made of, (batch,) each: what was earned, how much the state after counts, what it is worth.

        With `multi_step` n the first is the sum of n discounted rewards and the second γ to the n-th power (Sutton
        1988); at an end that is 0.
        """
        return batch.returns, batch.discounts, self._state_values(batch.poststates)

    def _state_values(self, states: Tensor) -> Tensor:
        """What `states`, (n, history, height, width), are worth, (n,): max_a Q_target(s, a).

        In double Q-learning the online network tells the best action (van Hasselt, Guez and Silver 2016,
        arXiv:1509.06461). With `target_exploration_rate` ε, (1-ε)·max + ε·mean takes the place of max (Expected Sarsa:
        van Seijen et al. 2009).
        """
        q = self._target.forward(states)  # (n, num_actions)
        judge = self._online.forward(states) if self.options.double_dqn else q
        best = q.gather(1, judge.argmax(dim=1, keepdim=True))[:, 0]  # (n,)
        return best + self.options.target_exploration_rate * (q.mean(dim=1) - best)

    def _descend(self, trace: Sequence[Pass], deltas: Tensor) -> None:
        """Takes an optimizer's step down the gradient that `deltas`, (batch, num_actions), send back."""
        network, scale = self._online, 1 / len(deltas)
        factor = self._scale.factor if self._scale else 1.0  # read first, because `fits` may change it
        network.backward(trace, deltas * factor if self._scale else deltas)
        if self._scale is None or self._scale.fits(network.gradient):
            self._optimizer.step(network.gradient, scale / factor)

    def anneal(self, step: int) -> None:
        """Sets the learning rate for the updates of this training step."""
        self._optimizer.set_learning_rate(self.options.learning_rate_at(step))

    def update_target_network(self) -> None:
        """Copies the weights, and the running averages of batch norm, to the target network.

        With `target_rate` τ it goes only so much of the way, which makes it an average over the last 1/τ times (Polyak
        and Juditsky 1992, doi:10.1137/0330046; as a target: Lillicrap et al. 2016, arXiv:1509.02971). Averages play
        better than what moves with every minibatch: so it acts, too, and is what snapshots hold.
        """
        if self._target is not self._online:
            self._target.approach(self._online, self.options.target_rate)

    def layers(self) -> list[Layer]:
        """The weights that act and the optimizer's state, in Neon's layout."""
        states = self._optimizer.states if self._optimizer.used else []
        return self._online.layout.to_neon(self._acting, states)

    def load_layers(self, layers: Sequence[Layer], name: str, optimizer: str | None = None) -> None:
        """Takes over weights and optimizer state from the snapshot `name`; the target network gets the same weights.

        An optimizer of another kind starts afresh. Where none is named it is told by how many arrays it keeps.

        Raises:
            SnapshotError: they are another network's; the message says what differs.
        """
        layout = self._online.layout
        require_fit(layers, layout.layers, self.state_shape, self.options.batch_norm, name)
        states = layout.from_neon(layers, self._online)
        if len(states) == len(self._optimizer.states) and optimizer in (None, self.options.optimizer):
            self._optimizer.load(states)
        elif states:
            logger.info("The optimizer in %s is not %s: it starts afresh", name, self.options.optimizer)
        self._target.approach(self._online)

    def state(self) -> dict[str, Any]:
        """All that it needs to go on exactly: weights of both networks, optimizer and counters."""
        networks = [self._online] if self._target is self._online else [self._online, self._target]
        return dict(
            networks=[network.state() for network in networks],
            optimizer=self._optimizer.state(),
            train_iterations=self.train_iterations,
            scale=self._scale and [self._scale.factor, self._scale.fitting],
        )

    def restore(self, state: dict[str, Any]) -> None:
        """Takes over a state; an optimizer of another kind starts afresh."""
        networks = state["networks"]
        self._online.restore(networks[0])
        if self._target is not self._online:
            self._target.restore(networks[-1])
        if state["optimizer"]["kind"] == type(self._optimizer).__name__:
            self._optimizer.restore(state["optimizer"])
        else:
            logger.info("The optimizer was %s: the new one starts afresh", state["optimizer"]["kind"])
        self.train_iterations = state["train_iterations"]
        if self._scale and state["scale"]:
            self._scale.factor, self._scale.fitting = state["scale"]

    def hold_screens(self, memory: ReplayMemory) -> None:
        """Keeps the screens of a `memory` that is still empty on the GPU, if there is one with room for them."""
        if self.device.type == "cuda" and memory.screens.nbytes < torch.cuda.mem_get_info(self.device)[0] - _SPARE:
            memory.screens = gpu.DeviceScreens(memory.screens.shape, self.device)
            logger.info("The replay memory's screens are on the GPU")

    def _here(self, batch: Minibatch) -> Batch:
        dtype = np.float64 if self._online.master.dtype is torch.float64 else np.float32
        returns, discounts = discounted(batch, self.options, dtype)
        fields = (batch.prestates, batch.actions, returns, discounts, batch.poststates, batch.weights)
        return Batch(*map(self._tensor, fields))

    def _tensor(self, array: Any) -> Tensor:
        return array if isinstance(array, torch.Tensor) else torch.from_numpy(array).to(self.device)


def discounted(batch: Minibatch, options: DeepQNetworkOptions, dtype: DTypeLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """What a transition earned and what the Q-value of its poststate is worth.

    Returns:
        Σ γ^k · r_k over its steps, each reward clipped, (batch,) of `dtype`, and γ^steps, or 0 at an end, likewise.
        Where the memory has formed targets, these and 0.
    """
    if batch.targets is not None:
        return batch.targets.astype(dtype), np.zeros(len(batch.targets), dtype)
    steps = np.arange(batch.rewards.shape[1])
    rewards = batch.rewards.astype(np.float64).clip(options.min_reward, options.max_reward)  # (batch, multi_step)
    counts = options.discount_rate**steps * (steps < batch.steps[:, None])
    discounts = options.discount_rate**batch.steps * ~batch.terminals
    return (rewards * counts).sum(axis=1).astype(dtype), discounts.astype(dtype)


def find_device(backend: BackendOptions) -> torch.device:
    """The device asked for; where none was, the GPU if there is one.

    Raises:
        OptionError: it is not there.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wanted = backend.backend or ("gpu" if gpus and backend.datatype != "float64" else "cpu")
    if wanted == "cpu":
        if backend.datatype in ("float16", "tf32"):
            raise OptionError(
                f"--datatype {backend.datatype} is for the GPU, and none was found: use bfloat16 on the CPU"
            )
        return torch.device("cpu")
    if not gpus:
        raise OptionError("--backend gpu: PyTorch finds no GPU here; use --backend cpu, or leave the option out")
    if backend.device_id >= gpus:
        raise OptionError(f"--device_id {backend.device_id}: there are {gpus} GPUs, counted from 0")
    return torch.device("cuda", backend.device_id)
