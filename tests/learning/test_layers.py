"""New kinds of layers, losses and targets, as a student adds them: none needs a gradient by hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from simple_dqn import deepqnetwork
from simple_dqn.deepqnetwork import BackendOptions, Batch, DeepQNetwork, DeepQNetworkOptions, QLearning
from simple_dqn.errors import SnapshotError
from simple_dqn.learning.guided import read_network
from simple_dqn.learning.layers import (
    BaseLayer,
    BatchNorm,
    Conv,
    Dueling,
    Linear,
    Parameter,
    Rectifier,
    Shape,
    q_layers,
)
from simple_dqn.learning.neon_network import NeonNetwork
from simple_dqn.learning.network import Layout, Pass, QNetwork
from simple_dqn.saving.snapshot import Snapshot, read_snapshot, write_snapshot
from test_deepqnetwork import random_batch


@dataclass(frozen=True)
class LayerNorm(BaseLayer):
    """Layer normalization with gain and bias (Ba, Kiros and Hinton 2016, arXiv:1607.06450)."""

    def parameters(self, seen: Shape) -> dict[str, Parameter]:
        return {"gain": Parameter(seen, fill=1), "bias": Parameter(seen, fill=0)}

    def forward(self, p: dict[str, Tensor], x: Tensor, training: bool) -> Tensor:
        shape = x.shape[1:]
        return functional.layer_norm(x, shape, p["gain"].view(shape), p["bias"].view(shape))


@dataclass(frozen=True)
class BiasedConv(Conv):
    """A convolution with bias. `Conv.backward` knows no bias, so it must not be used."""

    def parameters(self, seen: Shape) -> dict[str, Parameter]:
        return super().parameters(seen) | {"b": Parameter((self.filters,), fill=0.1)}

    def forward(self, p: dict[str, Tensor], x: Tensor, training: bool) -> Tensor:
        return super().forward(p, x, training) + p["b"][:, None, None]


@dataclass(frozen=True)
class Sigmoid(BaseLayer):
    """Its gradient is computed from its output, which a rectifier must leave alone."""

    def forward(self, p: dict[str, Tensor], x: Tensor, training: bool) -> Tensor:
        return torch.sigmoid(x)


NETWORKS: dict[str, list[BaseLayer]] = {
    "ours": [Conv(3, 4, 2, pixels=True), BatchNorm(), Rectifier(), Linear(6), BatchNorm(), Rectifier(), Linear(3)],
    "dueling": [
        Conv(3, 4, 2, pixels=True),
        Rectifier(),
        Conv(4, 2, 1),
        Rectifier(),
        Linear(6),
        Rectifier(),
        Dueling(3),
    ],
    "new kinds": [BiasedConv(3, 4, 2, pixels=True), LayerNorm(), Rectifier(), Linear(6), LayerNorm(), Linear(3)],
    "in the first and last place": [LayerNorm(), Sigmoid(), Rectifier(), Linear(3), LayerNorm()],
}


@pytest.mark.parametrize("batch", [2, 9])  # from 8 images on `Linear` computes differently
@pytest.mark.parametrize("layers", NETWORKS.values(), ids=NETWORKS)
def test_gradients_equal_finite_differences(layers: list[BaseLayer], batch: int) -> None:
    rng = np.random.default_rng(1)
    layout = Layout(layers, (2, 8, 9))
    network = QNetwork(layout, layout.first_weights(np.random.RandomState(1)), torch.float64, torch.device("cpu"))
    states = torch.from_numpy(rng.integers(0, 256, (batch, 2, 8, 9), np.uint8))
    g = torch.from_numpy(rng.normal(size=(batch, 3)))

    def total() -> float:
        return float((network.forward(states, []) * g).sum())

    trace: list[Pass] = []
    network.forward(states, trace)
    network.backward(trace, g)
    for part in layout.places:
        for i in rng.choice(range(part.start, part.stop), min(4, part.stop - part.start), replace=False):
            value = float(network.master[i])
            sides = []
            for change in (1e-6, -1e-6):
                network.master[i] = value + change
                sides.append(total())
            network.master[i] = value
            expected = (sides[0] - sides[1]) / 2e-6
            assert float(network.gradient[i]) == pytest.approx(expected, rel=1e-5, abs=1e-7), (part.name, part.layer)


class Plain(BaseLayer):
    """Another layer without its `backward`."""

    def __init__(self, layer: BaseLayer) -> None:
        self.__dict__.update(output_shape=layer.output_shape, parameters=layer.parameters, computed_by=layer)

    def forward(self, p: dict[str, Tensor], x: Tensor, training: bool) -> Tensor:
        layer: BaseLayer = self.__dict__["computed_by"]
        return layer.forward(p, x.clone(), training)


@pytest.mark.parametrize("dueling", [True, False])
def test_backward_passes_by_hand_are_those_of_autograd(dueling: bool) -> None:
    states = torch.from_numpy(random_batch(np.random.default_rng(1)).prestates)
    layers = q_layers(4, dueling)
    assert [layer.by_autograd for layer in layers[-3:]] == [False, False, dueling]
    layout = Layout(layers, (4, 42, 42))
    weights = layout.first_weights(np.random.RandomState(1))
    gradients = []
    for each in (layers, [Plain(layer) for layer in layers]):
        network = QNetwork(Layout(each, (4, 42, 42)), weights.copy(), torch.float32, torch.device("cpu"))
        trace: list[Pass] = []
        network.backward(trace, torch.ones_like(network.forward(states, trace)))
        gradients.append(network.gradient)
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


def make(monkeypatch: pytest.MonkeyPatch, seed: int = 1, **options: Any) -> DeepQNetwork:
    """A network with the new kinds of layers; a student edits `NATURE` and `q_layers` instead."""

    def layers(num_actions: int, *variants: bool) -> list[BaseLayer]:
        _, *rest = q_layers(num_actions)
        return [BiasedConv(32, 8, 4, pixels=True), LayerNorm(), *rest]

    monkeypatch.setattr(deepqnetwork, "q_layers", layers)
    return DeepQNetwork(4, (4, 42, 42), DeepQNetworkOptions(**options), BackendOptions(backend="cpu"), seed)


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
def test_a_network_with_new_kinds_of_layers_trains_and_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    batch = random_batch(np.random.default_rng(1))._replace(terminals=np.ones(32, bool))
    network, other = (make(monkeypatch, seed, optimizer=optimizer) for seed in (1, 2))
    costs = [network.train(batch).cost for _ in range(30)]
    assert costs[-1] < costs[0] / 5
    assert network._online.arrays[1]["bias"].any()
    write_snapshot(tmp_path / "new.pkl", Snapshot(network.layers(), (4, 42, 42), {}))
    found = read_snapshot(tmp_path / "new.pkl").layers
    other.load_layers(found, "new.pkl")
    assert torch.equal(other._online.master, network._online.master)
    assert all(torch.equal(*both) for both in zip(other._optimizer.states, network._optimizer.states, strict=True))
    other.restore(network.state())
    assert other.train(batch).cost == network.train(batch).cost
    with pytest.raises(SnapshotError, match="cannot explain a Convolution with W, b here: remove"):
        read_network(found)


def test_a_snapshot_with_other_kinds_of_layers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = DeepQNetwork(4, (4, 42, 42), DeepQNetworkOptions(), BackendOptions(backend="cpu"), 1)
    message = "x.pkl does not fit: its layers are Convolution, Convolution, .*, not Convolution, LayerNorm, Convolution"
    with pytest.raises(SnapshotError, match=message):
        make(monkeypatch).load_layers(plain.layers(), "x.pkl")


def test_a_new_loss_needs_no_gradient_by_hand() -> None:
    sent_back = []

    class LogCosh(DeepQNetwork):
        def loss(self, q: Tensor, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
            errors = q.gather(1, batch.actions.long()[:, None])[:, 0] - y
            return (batch.weights * torch.log(torch.cosh(errors))).sum(), errors.detach()

        def _descend(self, trace: Any, gradient: Tensor) -> None:
            sent_back.append(gradient)
            super()._descend(trace, gradient)

    options, backend = DeepQNetworkOptions(), BackendOptions(backend="cpu", datatype="float64")
    network = LogCosh(4, (4, 42, 42), options, backend, 1)
    batch = random_batch(np.random.default_rng(1))._replace(weights=np.linspace(0, 1, 32, dtype=np.float32))
    results = [network.train(batch) for _ in range(20)]
    expected = np.zeros((32, 4))
    expected[np.arange(32), batch.actions] = batch.weights * np.tanh(results[0].errors)
    assert sent_back[0].numpy() == pytest.approx(expected, abs=1e-6)
    assert results[-1].cost < results[0].cost / 2


@pytest.mark.parametrize("clip", [1.0, 0.3, 0.0])
def test_the_gradient_of_the_loss_is_the_clipped_error_times_the_weight(clip: float) -> None:
    rng = np.random.default_rng(1)
    backend = BackendOptions(backend="cpu")
    network = DeepQNetwork(4, (4, 42, 42), DeepQNetworkOptions(clip_error=clip), backend, 1)
    batch = network._to_batch(random_batch(rng)._replace(weights=rng.random(32).astype(np.float32)))
    q = torch.from_numpy(rng.normal(size=(32, 4)).astype(np.float32)).requires_grad_()
    y = torch.from_numpy(rng.normal(size=32).astype(np.float32))
    loss, errors = network.loss(q, y, batch)
    (gradient,) = torch.autograd.grad(loss, q)
    limit = clip or np.inf
    expected = torch.zeros(32, 4)
    expected[torch.arange(32), batch.actions.long()] = errors.clamp(-limit, limit) * batch.weights
    assert (errors.abs() > 1).any()
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize("double_dqn", [True, False])
def test_targets_are_the_same_with_numpy_as_with_torch(double_dqn: bool) -> None:
    """Neon itself need not be installed for this."""
    rng = np.random.default_rng(1)
    tables = rng.normal(size=(2, 32, 4)).astype(np.float32)  # Q-values of the online network, of the target network
    options = DeepQNetworkOptions(double_dqn=double_dqn, target_exploration_rate=0.1)
    arguments = (4, (4, 42, 42), options, BackendOptions(backend="cpu"))

    class Arrays(NeonNetwork):
        def __init__(self) -> None:
            QLearning.__init__(self, *arguments)

        def _q_values(self, states: Any, target: bool) -> Any:
            return tables[int(target)]

    class Tensors(DeepQNetwork):
        def _q_values(self, states: Any, target: bool) -> Any:
            return torch.from_numpy(tables[int(target)])

    arrays, tensors = Arrays(), Tensors(*arguments, 1)
    batch = random_batch(rng, multi_step=3)
    y = arrays.targets(arrays._to_batch(batch))
    assert y.dtype == np.float32
    assert y == pytest.approx(tensors.targets(tensors._to_batch(batch)).numpy(), rel=1e-6)
    formed = batch._replace(targets=y, poststates=batch.poststates[:, :0])
    assert np.array_equal(arrays.targets(arrays._to_batch(formed)), y)


def test_nothing_below_the_network_imports_it() -> None:
    folder = Path(deepqnetwork.__file__).parent / "learning"
    for name in ("layers", "network", "optimizers", "cuda"):
        assert "deepqnetwork" not in (folder / f"{name}.py").read_text(encoding="utf-8"), name
