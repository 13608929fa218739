"""The Q-network on Nervana's Neon 2.6, on which the original simple_dqn ran. Only this module knows Neon.

`NeonNetwork` learns what `DeepQNetwork` learns: Neon computes the layers (`Model.fprop` and `bprop`), the cost and the
optimizer's steps. docs/neon.md explains how to install Neon, and how much the two differ.
Neon: https://github.com/NervanaSystems/neon
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simple_dqn.deepqnetwork import BackendOptions, DeepQNetworkOptions, QLearning, TrainResult
from simple_dqn.errors import OptionError
from simple_dqn.learning.layers import Conv, Linear, q_layers, require_memory
from simple_dqn.replay_memory import Minibatch, ReplayMemory, TargetParts
from simple_dqn.saving.snapshot import Layer, require_fit
from simple_dqn.wording import count

logger = logging.getLogger(__name__)

_STATES = {"rmsprop": 1, "adam": 2, "adadelta": 3}  # arrays that an optimizer keeps for each array of weights


class NeonNetwork(QLearning):
    """Q-values of the actions in a state, learned by Q-learning on Neon; the methods are those of `DeepQNetwork`.

    Neon's layers have a fixed batch size. So smaller batches are filled up with states whose results are left out. They
    take as long as a full batch.

    Args: those of `DeepQNetwork`. `seed` is also that of Neon's other random numbers. `threads` is not used, because
    NumPy has its own settings, such as OMP_NUM_THREADS.

    Raises:
        OptionError: Neon or its backend is missing, or the network does not fit the screens or the memory.
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
        super().__init__(num_actions, state_shape, options, backend)
        if options.dueling:
            raise OptionError("--dueling: only PyTorch's network has streams; use --library torch")
        if options.target_rate < 1:
            raise OptionError("--target_rate: only with PyTorch; use --library torch")
        self._neon = load_neon()
        self._layers = q_layers(num_actions, batch_norm=options.batch_norm)
        require_memory(self._layers, state_shape, options.batch_size)
        with _quiet():
            self._backend = self._make_backend(backend, seed)
            self._cost = self._neon.layers.GeneralizedCost(costfunc=self._neon.transforms.SumSquared())
            self._online = self._make_model(self._cost)
            self._target = self._make_model() if use_target else self._online
            self._optimizer = self._make_optimizer(backend.stochastic_round)
        size = options.batch_size
        self._states = np.zeros((*state_shape, size), backend.datatype)  # the batch comes last in Neon
        self._input = self._backend.empty(self._states.shape)
        self._input.lshape = self._states.shape  # the first layer wants to know it
        self._targets = self._backend.empty((num_actions, size))
        self._weights = self._backend.empty((1, size))

    def predict(self, states: NDArray[np.uint8]) -> NDArray[np.floating[Any]]:
        """Q-values (n, num_actions) of `states` (n, history, height, width), for any n; float32, or float64."""
        size = self.options.batch_size
        parts = [states[i : i + size] for i in range(0, max(len(states), 1), size)]
        with self._at_work():
            return np.concatenate([self._q_values(part, target=False) for part in parts])

    def target_arrays(self, batch: Minibatch) -> TargetParts:
        """The `target_parts` of `batch`, of at most `batch_size` transitions."""
        with self._at_work():
            return TargetParts(*self.target_parts(self._to_batch(batch)))

    def train(self, batch: Minibatch) -> TrainResult:
        """One step of Q-learning on `batch`, of at most `batch_size` transitions.

        Raises:
            ValueError: it is larger; or it is smaller, and there is batch norm, whose averages would be wrong.
        """
        n, size, clip = len(batch.actions), self.options.batch_size, self.options.clip_error
        if n > size or (n < size and self.options.batch_norm):
            raise ValueError(f"the minibatch has {n} transitions, but Neon's layers need {size}")
        with self._at_work():
            targets = self.targets(self._to_batch(batch))  # (n,)
            q = self._forward(self._online, batch.prestates, training=True)  # (num_actions, batch_size)
            wanted = q.get()
            taken = (batch.actions, np.arange(n))
            errors = (wanted[taken] - targets).astype(np.float32)  # (n,)
            wanted[taken] = targets  # all others, and the states that fill the batch up, have no error
            self._targets.set(wanted)
            cost = self._cost.get_cost(q, self._targets)
            deltas = self._cost.get_errors(q, self._targets)
            if clip:
                self._backend.clip(deltas, -clip, clip, out=deltas)
            self._weigh(deltas, batch.weights)
            self._online.bprop(deltas)
            self._optimizer.optimize(self._online.layers_to_optimize, epoch=0)
        self.train_iterations += 1
        return TrainResult(float(cost.item()) * size / n, errors)

    def anneal(self, step: int) -> None:
        """Set the learning rate for the updates of this training step; Adadelta has none."""
        self._optimizer.learning_rate = self.options.learning_rate_at(step)

    def update_target_network(self) -> None:
        """Copy weights and averages of the online network to the target network."""
        if self._target is self._online:
            return
        with self._at_work():
            for target, online in zip(_tensors(self._target), _tensors(self._online), strict=True):
                target[:] = online

    def layers(self) -> list[Layer]:
        """The weights and the optimizer's state, in Neon's layout."""
        with self._at_work():
            return [_described(layer) for layer in self._online.layers_to_optimize]

    def load_layers(self, layers: Sequence[Layer], name: str, optimizer: str | None = None) -> None:
        """Load a snapshot, as `DeepQNetwork.load_layers` does."""
        require_fit(layers, self._layers, self.state_shape, name)
        states = [kept for layer in layers for kept in (layer.states if layer.type == "BatchNorm" else [layer.states])]
        same = optimizer in (None, self.options.optimizer)
        usable = same and {len(kept) for kept in states} == {_STATES[self.options.optimizer]}
        if any(states) and not usable:
            logger.info("The optimizer in %s is not %s, so it starts from scratch", name, self.options.optimizer)
        with self._at_work():
            for mine, theirs in zip(self._online.layers_to_optimize, layers, strict=True):
                for key in _parameters(mine):
                    _put(getattr(mine, key), theirs.params[key])
            for (weights, kept), values in zip(self._optimized(), states, strict=True):
                kept[:] = [_put(self._backend.zeros_like(weights), value) for value in values if usable]
        self.update_target_network()

    def state(self) -> dict[str, Any]:
        """The weights of both networks, the optimizer's state and the counters."""
        with self._at_work():
            states = [[state.get() for state in kept] for _, kept in self._optimized()]
            return dict(
                networks=[[tensor.get() for tensor in _tensors(model)] for model in self._models()],
                optimizer=dict(kind=self.options.optimizer, steps=getattr(self._optimizer, "t", 0), states=states),
                train_iterations=self.train_iterations,
            )

    def restore(self, state: dict[str, Any]) -> None:
        """Continue exactly from a state, as `DeepQNetwork.restore` does. ValueError: it belongs to another network."""
        networks, optimizer = state["networks"], state["optimizer"]
        same = optimizer["kind"] == self.options.optimizer
        with self._at_work():
            for model, values in zip(self._models(), (networks[0], networks[-1]), strict=False):
                for tensor, value in zip(_tensors(model), values, strict=True):
                    _put(tensor, value)
            for (weights, kept), values in zip(self._optimized(), optimizer["states"], strict=True):
                kept[:] = [_put(self._backend.zeros_like(weights), value) for value in values if same]
        if same:
            self._optimizer.t = optimizer["steps"]  # only Adam reads it
        else:
            logger.info("The optimizer was %s. The new one starts from scratch", optimizer["kind"])
        self.train_iterations = state["train_iterations"]

    def hold_screens(self, memory: ReplayMemory) -> None:
        """Do nothing, because Neon takes its batches from the processor's memory."""

    # Calls of Neon

    def _make_backend(self, backend: BackendOptions, seed: int) -> Any:
        name, gen_backend = find_backend(backend), self._neon.backends.gen_backend
        self._neon.NervanaObject.be = None  # because Neon would close the previous network's backend
        try:
            # The optimizer gets the stochastic rounding, because Neon 2.6 refuses it here.
            made = gen_backend(
                name, rng_seed=seed, datatype=np.dtype(backend.datatype).type,
                batch_size=self.options.batch_size, device_id=backend.device_id,
            )  # fmt: skip
        except Exception as error:  # any kind, because it may come from the GPU's driver
            why = str(error).split("\n")[0] or type(error).__name__
            raise OptionError(
                f"--backend {name}: Neon cannot use it here ({why}); --backend cpu always works"
            ) from error
        logger.info("Backend: Neon's %s, %s", type(made).__name__, backend.datatype)
        if backend.stochastic_round is not False and name != "gpu":
            logger.warning("--stochastic_round does nothing here: Neon rounds stochastically only on the GPU")
        if backend.datatype == "float16" and name != "gpu":
            logger.warning("--datatype float16 is for the GPU: here it takes dozens of times as long as float32")
        return made

    def _make_model(self, cost: Any = None) -> Any:
        neon, made = self._neon, []
        layers = [layer for layer in self._layers if isinstance(layer, Conv | Linear)]
        for layer in layers:
            last = layer is layers[-1]
            after = dict(
                activation=None if last else neon.transforms.Rectlin(),
                batch_norm=self.options.batch_norm and not last,
            )
            if isinstance(layer, Conv):
                shape = (layer.size, layer.size, layer.filters)
                init = neon.initializers.Xavier()
                made.append(neon.layers.Conv(shape, strides=layer.stride, init=init, **after))
            else:
                init = neon.initializers.Xavier(local=False)
                made.append(neon.layers.Affine(nout=layer.outputs, init=init, **after))
        model = neon.models.Model(made)
        model.initialize(self.state_shape, cost)
        return model

    def _make_optimizer(self, stochastic_round: bool | int) -> Any:
        o, optimizers = self.options, self._neon.optimizers
        if o.optimizer == "adam":
            return optimizers.Adam(
                learning_rate=o.learning_rate, epsilon=o.adam_epsilon, stochastic_round=stochastic_round
            )
        if o.optimizer == "adadelta":
            return optimizers.Adadelta(decay=o.decay_rate, stochastic_round=stochastic_round)
        return optimizers.RMSProp(
            decay_rate=o.decay_rate, learning_rate=o.learning_rate, stochastic_round=stochastic_round
        )

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        """Let Neon compute with this network's backend; by itself it uses that of the network made last."""
        self._neon.NervanaObject.be = self._backend
        with _quiet():
            yield

    def _forward(self, model: Any, states: Any, training: bool = False) -> Any:
        """Neon's tensor of Q-values, (num_actions, batch_size), of up to `batch_size` states; a buffer of the model."""
        self._states[..., : len(states)] = states.transpose(1, 2, 3, 0)  # (history, height, width, batch)
        self._input.set(self._states)
        self._backend.divide(self._input, 255, self._input)
        return model.fprop(self._input, inference=not training)

    def _q_values(self, states: Any, target: bool) -> NDArray[np.floating[Any]]:
        model = self._target if target else self._online
        q = self._forward(model, states).get()[:, : len(states)].T  # (n, num_actions)
        return q if q.dtype == np.float64 else q.astype(np.float32)

    def _q_of(self, q: NDArray[Any], actions: NDArray[Any]) -> NDArray[Any]:
        return q[np.arange(len(q)), actions]

    def _weigh(self, deltas: Any, weights: NDArray[np.float32]) -> None:
        """Multiply each transition's column of `deltas` by its weight.

        The factor size / n makes up for Neon's mean, which counts the states that fill the batch up.
        """
        size = self.options.batch_size
        if len(weights) < size or (weights != 1).any():
            scaled = np.zeros((1, size), deltas.dtype)
            scaled[0, : len(weights)] = weights * (size / len(weights))
            self._weights.set(scaled)
            deltas[:] = deltas * self._weights

    def _models(self) -> list[Any]:
        return [self._online] if self._target is self._online else [self._online, self._target]

    def _optimized(self) -> list[tuple[Any, list[Any]]]:
        """Each array of weights and the list of the optimizer's arrays for it, in the order of a snapshot."""
        get_param_list = self._neon.optimizers.optimizer.get_param_list
        return [(weights, kept) for (weights, _), kept in get_param_list(self._online.layers_to_optimize)]


def find_backend(backend: BackendOptions) -> str:
    """The backend that was asked for: cpu, gpu or mkl; by default the GPU, if Neon finds one.

    Raises:
        OptionError: Neon or that GPU is missing, or Neon was built without MKL.
    """
    if backend.backend == "cpu":
        return "cpu"
    if backend.backend == "mkl":
        if not load_neon().backends.util.check_mkl.get_mkl_lib():
            raise OptionError(
                "--backend mkl: Neon was built here without MKL (docs/neon.md); --backend cpu always works"
            )
        return "mkl"
    gpus = load_neon().backends.util.check_gpu.get_device_count()
    if not backend.backend:
        return "gpu" if gpus and backend.datatype != "float64" else "cpu"
    if backend.device_id >= gpus:
        found = (
            f"finds {count(gpus, 'GPU')}, counted from 0"
            if gpus
            else "finds no GPU here (it looks for one with PyCUDA)"
        )
        raise OptionError(f"--backend gpu --device_id {backend.device_id}: Neon {found}; --backend cpu always works")
    return "gpu"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings, because Neon uses what Python and NumPy have deprecated since."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _ArgSpec(NamedTuple):
    args: Any
    varargs: Any
    keywords: Any
    defaults: Any


def _getargspec(function: Any) -> _ArgSpec:
    return _ArgSpec(*inspect.getfullargspec(function)[:4])


def load_neon() -> Any:
    """The package `neon`, with its modules that are used here.

    Raises:
        OptionError: it is missing, or cannot be imported.
    """
    setattr(inspect, "getargspec", _getargspec)  # noqa: B010  (mypy): Neon calls it, and Python 3.11 removed it
    logging.getLogger("neon").setLevel(logging.CRITICAL + 1)  # because it warns of a NumPy newer than itself
    try:
        with _quiet(), contextlib.redirect_stdout(io.StringIO()) as said:
            import neon
            import neon.backends.util.check_gpu
            import neon.backends.util.check_mkl
            import neon.initializers
            import neon.layers
            import neon.models
            import neon.optimizers.optimizer
            import neon.transforms
    except ModuleNotFoundError as error:
        what = "is not installed" if error.name == "neon" else f"cannot be loaded ({error})"
        raise OptionError(_missing(what)) from None
    except (Exception, SystemExit) as error:  # it exits if it was not built
        why = " ".join((said.getvalue() or str(error)).split())
        raise OptionError(_missing(f"cannot be loaded ({why})")) from None
    return neon


def _missing(what: str) -> str:
    return (
        f"--library neon: Neon {what}. docs/neon.md explains how to install "
        "it from https://github.com/NervanaSystems/neon; --library torch does the same without it"
    )


def _parameters(layer: Any) -> tuple[str, ...]:
    return ("beta", "gamma", "gmean", "gvar") if layer.classnm == "BatchNorm" else ("W",)


def _tensors(model: Any) -> list[Any]:
    return [getattr(layer, name) for layer in model.layers_to_optimize for name in _parameters(layer)]


def _described(layer: Any) -> Layer:
    """A layer of Neon in the form of a snapshot."""
    params = {name: getattr(layer, name).get() for name in _parameters(layer)}
    if layer.classnm == "BatchNorm":
        return Layer("BatchNorm", {}, params, [[state.get() for state in kept] for kept in layer.states])
    if layer.classnm == "Convolution":
        config = {"fshape": tuple(layer.fshape), "strides": layer.strides}
    else:
        config = {"nout": layer.nout}
    return Layer(layer.classnm, config, params, [state.get() for state in layer.states])


def _put(tensor: Any, value: NDArray[Any]) -> Any:
    """Copy `value` to `tensor`, and return it."""
    return tensor.set(np.ascontiguousarray(value, tensor.dtype).reshape(tensor.shape))
