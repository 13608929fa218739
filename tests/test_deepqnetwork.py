"""DeepQNetwork: the numbers of Neon, a naive twin, and the contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from simple_dqn import deepqnetwork
from simple_dqn.deepqnetwork import BackendOptions, DeepQNetwork, DeepQNetworkOptions
from simple_dqn.errors import OptionError, SnapshotError
from simple_dqn.learning.cuda import Later
from simple_dqn.learning.guided import guided_q_value, read_network
from simple_dqn.learning.neon_network import NeonNetwork
from simple_dqn.learning.optimizers import Adam, LossScale, Optimizer, RMSProp
from simple_dqn.replay_memory import Minibatch
from simple_dqn.saving.snapshot import plain_bytes, read_snapshot

NEON = Path(__file__).resolve().parents[2] / "shared" / "reference" / "neon"
needs_fixtures = pytest.mark.skipif(not NEON.is_dir(), reason="the fixtures made by Neon are not here")


def make(
    actions: int = 4, size: int = 42, seed: int = 1, datatype: str = "float32", use_target: bool = True, **options: Any
) -> DeepQNetwork:
    backend = BackendOptions(backend="cpu", datatype=datatype)
    return DeepQNetwork(actions, (4, size, size), DeepQNetworkOptions(**options), backend, seed, use_target)


def random_batch(
    rng: np.random.Generator, size: int = 42, actions: int = 4, batch: int = 32, multi_step: int = 1
) -> Minibatch:
    screens = rng.integers(0, 256, (batch, 5, size, size), np.uint8)
    return Minibatch(
        screens[:, :-1],
        rng.integers(0, actions, batch).astype(np.uint8),
        rng.integers(-2, 3, (batch, multi_step)).astype(np.float32),
        screens[:, 1:],
        rng.random(batch) < 0.2,
        np.arange(batch),
        np.ones(batch, np.float32),
        rng.integers(1, multi_step + 1, batch),
    )


# Against Neon


class Fixture:
    """What real Neon was given and answered; NEON.md describes the arrays."""

    def __init__(self, name: str) -> None:
        self.inputs, self.outputs = (np.load(NEON / f"{name}_{kind}.npz") for kind in ("inputs", "outputs"))
        self.before, self.after = (read_snapshot(NEON / f"{name}_{kind}.pkl") for kind in ("before", "after"))
        self.options: dict[str, Any] = dict(optimizer=name.split("_")[-1], batch_norm="_bn_" in name)
        self.size: int = self.inputs["prestates"].shape[-1]
        fields = ("prestates", "actions", "rewards", "poststates", "terminals")
        indexes, weights, steps = np.arange(32), np.ones(32, np.float32), np.ones(32, np.int64)
        self.batches = [
            Minibatch(pre, actions, rewards.astype(np.float32)[:, None], post, terminals, indexes, weights, steps)
            for pre, actions, rewards, post, terminals in zip(*(self.inputs[name] for name in fields), strict=True)
        ]

    def network(self, datatype: str) -> DeepQNetwork:
        return make(self.outputs["q_before"].shape[-1], self.size, datatype=datatype, **self.options)

    def q(self, network: DeepQNetwork | NeonNetwork) -> NDArray[Any]:
        return np.array([network.predict(batch.prestates) for batch in self.batches])

    def train(self, network: DeepQNetwork | NeonNetwork, steps: int = 20) -> list[float]:
        costs = []
        for step in range(steps):
            if self.inputs["target_sync_before_step"].tolist().count(step):
                network.update_target_network()
            costs.append(network.train(self.batches[self.inputs["batch_order"][step]]).cost)
        return costs


NAMES = ["d84_rmsprop", "s42_rmsprop", "s42_adam", "s42_adadelta", "s42_bn_rmsprop"]


@needs_fixtures
@pytest.mark.parametrize("name", NAMES)
def test_initial_weights_are_neons_bit_for_bit(name: str) -> None:
    fixture = Fixture(name)
    for own, neon in zip(fixture.network("float32").layers(), fixture.before.layers, strict=True):
        assert own.type == neon.type
        assert own.config == neon.config
        assert all(np.array_equal(own.params[key], neon.params[key]) for key in neon.params)
        assert not any(own.states)


@needs_fixtures
@pytest.mark.parametrize("name", NAMES)
def test_the_formulas_are_neons(name: str) -> None:
    """In float64 nothing but the formulas can differ (batch norm: Neon keeps its sums in float32)."""
    fixture = Fixture(name)
    network = fixture.network("float64")
    tolerance = 1e-6 if "_bn_" in name else 1e-12
    assert fixture.train(network) == pytest.approx(fixture.outputs["f64_costs"], rel=tolerance)
    assert fixture.q(network) == pytest.approx(fixture.outputs["f64_q_after"], abs=tolerance)


# How far float32 takes two correct programs apart in 20 updates, by the order of their sums: Neon itself is 1.6e-7,
# 4.7e-7, 4.3e-7 and 1.4e-5 away from the exact figures, this program 2.1e-7, 8.0e-7, 6.3e-7 and 1.7e-5.
APART = {"d84_rmsprop": 5e-7, "s42_rmsprop": 1e-6, "s42_adam": 1e-6, "s42_adadelta": 6e-5}


@needs_fixtures
@pytest.mark.parametrize("name", NAMES)
def test_float32_agrees_with_neon_to_rounding(name: str) -> None:
    fixture = Fixture(name)
    network = fixture.network("float32")
    costs = fixture.train(network)
    first = 5 if "_bn_" in name else 20
    assert costs[:first] == pytest.approx(fixture.outputs["costs"][:first], rel=2e-5 if "adadelta" in name else 2e-6)
    if name in APART:
        assert fixture.q(network) == pytest.approx(fixture.outputs["q_after"], abs=APART[name])


@needs_fixtures
@pytest.mark.parametrize("name", [*NAMES, "s42_rmsprop_py36"])
def test_goes_on_from_a_snapshot_of_neon(name: str) -> None:
    fixture = Fixture(name.removesuffix("_py36"))
    network = fixture.network("float64")
    network.load_layers(read_snapshot(NEON / f"{name}_after.pkl").layers, "after.pkl")
    scale = float(abs(fixture.outputs["q_loaded"]).max())
    assert fixture.q(network) == pytest.approx(fixture.outputs["q_loaded"], abs=1e-6 * scale)
    assert fixture.train(network, 3) == pytest.approx(fixture.outputs["resume_costs"], rel=1e-5)
    assert fixture.q(network) == pytest.approx(fixture.outputs["q_resumed"], abs=2e-6 * scale)


# Against expected figures, without files


def test_golden_figures() -> None:
    """The weights and inputs come from seeds; the figures are those of the float64 run, which agrees with Neon's."""
    rng = np.random.default_rng(2015)
    batches = [random_batch(rng, size=84) for _ in range(2)]
    network = make(size=84, seed=1)
    network.update_target_network()
    costs = [network.train(batches[step % 2]).cost for step in range(4)]
    assert costs == pytest.approx([0.39676816, 0.44416948, 0.34736085, 0.31543584], rel=1e-5)
    q = [[0.64989035, -0.18157812, 0.10919311, 0.60051565], [0.52771528, -0.0032718, -0.07872025, 0.52518007]]
    assert network.predict(batches[0].prestates[:2]) == pytest.approx(np.array(q), abs=1e-6)


# Against a naive twin


class NaiveTwin:
    """The same network and rule as plainly as they can be written, in float64."""

    def __init__(self, network: DeepQNetwork, options: DeepQNetworkOptions) -> None:
        self.weights = []
        for layer in network.layers():
            w = torch.from_numpy(layer.params["W"].astype(np.float64))
            if layer.type == "Convolution":
                r, s, k = layer.config["fshape"]
                w = w.reshape(-1, r, s, k).permute(3, 0, 1, 2)
            self.weights.append(w.contiguous().requires_grad_())
        if options.dueling:  # a file has the streams as one layer
            last = self.weights[4].detach()
            value, advantages = last[0, :512], last[:, 512:]
            self.weights[4:] = [value.clone().requires_grad_(), advantages.clone().requires_grad_()]
        self.target = [w.detach().clone() for w in self.weights]
        self.squares = [torch.zeros_like(w) for w in self.weights]
        self.options = options

    def q(self, states: NDArray[np.uint8], weights: list[torch.Tensor]) -> torch.Tensor:
        x = torch.from_numpy(states.astype(np.float64)) / 255
        for w, stride in zip(weights, (4, 2, 1), strict=False):
            x = functional.relu(functional.conv2d(x, w, stride=stride))
        hidden = functional.relu(x.flatten(1) @ weights[3].T)
        if not self.options.dueling:
            return hidden @ weights[4].T
        value, advantages = hidden[:, :512] @ weights[4], hidden[:, 512:] @ weights[5].T
        return value[:, None] + advantages - advantages.mean(dim=1, keepdim=True)

    def train(self, batch: Minibatch) -> float:
        o = self.options
        loss = torch.zeros((), dtype=torch.float64)
        cost = 0.0
        for i in range(len(batch.actions)):
            post = batch.poststates[i : i + 1]
            selecting = self.q(post, self.weights if o.double_dqn else self.target)[0]
            q = self.q(post, self.target)[0]
            e = o.target_exploration_rate
            expected = (1 - e) * float(q[int(selecting.argmax())]) + e * float(q.mean())
            target = 0.0 if batch.terminals[i] else expected
            for reward in reversed(batch.rewards[i, : batch.steps[i]].tolist()):
                target = min(max(reward, o.min_reward), o.max_reward) + o.discount_rate * target
            error = self.q(batch.prestates[i : i + 1], self.weights)[0, int(batch.actions[i])] - target
            cost += float(error.detach()) ** 2 / 2 / len(batch.actions)
            clipped = error.detach().clamp(-o.clip_error, o.clip_error) if o.clip_error else error.detach()
            loss = loss + clipped * float(batch.weights[i]) * error
        gradients = torch.autograd.grad(loss, self.weights)
        with torch.no_grad():
            for w, g, s in zip(self.weights, gradients, self.squares, strict=True):
                g = g / len(batch.actions)
                s.copy_(o.decay_rate * s + (1 - o.decay_rate) * g * g)
                w -= o.learning_rate * g / ((s + 1e-6).sqrt() + 1e-6)
        return cost


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"clip_error": 0.0},
        {"clip_error": 0.05, "min_reward": 0.0, "max_reward": 2.0},
        {"discount_rate": 0.5},
        {"double_dqn": True},
        {"dueling": True},
        {"target_exploration_rate": 0.3},
        {"double_dqn": True, "target_exploration_rate": 0.3},
        {"double_dqn": True, "dueling": True, "learning_rate": 0.002},
    ],
    ids=str,
)
@pytest.mark.parametrize("multi_step", [1, 3])
@pytest.mark.parametrize("datatype", ["float64", "float32"])
def test_equals_its_naive_twin(changed: dict[str, Any], multi_step: int, datatype: str) -> None:
    rng = np.random.default_rng(3)
    network = make(actions=6, seed=5, datatype=datatype, **changed)
    network.update_target_network()
    twin = NaiveTwin(network, DeepQNetworkOptions(**changed))
    tolerance = 1e-12 if datatype == "float64" else 2e-5
    for _ in range(3):
        batch = random_batch(rng, actions=6, batch=7, multi_step=multi_step)
        batch = batch._replace(weights=rng.random(7).astype(np.float32))
        choices = [twin.q(batch.poststates, weights).argmax(dim=1) for weights in (twin.weights, twin.target)]
        assert network.train(batch).cost == pytest.approx(twin.train(batch), rel=tolerance)
    if network.options.double_dqn:
        assert (choices[0] != choices[1]).any()
    q = twin.q(batch.prestates, twin.weights).detach().numpy()
    assert network.predict(batch.prestates) == pytest.approx(q, abs=tolerance)


def test_another_target_counts_in_lambda_returns_too() -> None:
    """What CONTRIBUTING sends people to: the memory forms λ-returns of the same parts."""

    class Bonus(DeepQNetwork):
        def target_parts(self, batch: Any) -> Any:
            returns, discounts, values = super().target_parts(batch)
            return returns + 100, discounts / 2, values - 10

    options, backend = DeepQNetworkOptions(), BackendOptions(backend="cpu")
    network = Bonus(4, (4, 42, 42), options, backend, 1)
    batch = random_batch(np.random.default_rng(1))
    parts, one_step = network.target_arrays(batch), network.targets(network._to_batch(batch)).numpy()
    assert parts.returns + parts.discounts * parts.values == pytest.approx(one_step, rel=1e-6)
    assert one_step.min() > 80


def test_another_forward_pass_does_not_disturb_the_backward_pass() -> None:
    network = make()._online
    rng = np.random.default_rng(1)
    states, others = (torch.from_numpy(random_batch(rng).prestates) for _ in range(2))
    gradients = []
    for between in (False, True):
        trace: list[Any] = []
        q = network.forward(states, trace)
        if between:
            network.forward(others)
        network.backward(trace, torch.ones_like(q))
        gradients.append(network.gradient.clone())
    assert torch.equal(*gradients)


def test_low_precision_stays_near_float32() -> None:
    rng = np.random.default_rng(4)
    batches = [random_batch(rng) for _ in range(10)]
    exact, low = make(), make(datatype="bfloat16")
    for network in (exact, low):
        network.update_target_network()
    q = exact.predict(batches[0].prestates)
    assert low.predict(batches[0].prestates) == pytest.approx(q, abs=0.02 * float(abs(q).max()))
    for batch in batches:
        assert low.train(batch).cost == pytest.approx(exact.train(batch).cost, rel=0.1)
    assert low.layers()[0].params["W"].dtype == np.float32


def test_low_precision_tells_actions_apart_that_are_worth_nearly_the_same() -> None:
    """One step of delay costs a hundredth of a Q-value, which 8 bits cannot tell."""
    low = make(datatype="bfloat16")
    layers = low.layers()
    weights = layers[-1].params["W"]
    weights[1] = 1.0001 * weights[0]
    low.load_layers(layers, "x.pkl")
    q = low.predict(random_batch(np.random.default_rng(1)).prestates)
    assert q[:, 1] / q[:, 0] == pytest.approx(np.full(32, 1.0001), rel=1e-5)


# The loss scale of float16


def scaled(factor: float, **options: Any) -> tuple[DeepQNetwork, LossScale]:
    """A network that scales its loss as with float16, but computes in float32, where powers of two are exact."""
    network = make(**options)
    network._scale = scale = LossScale()
    scale.factor = factor
    return network, scale


def everything(network: DeepQNetwork) -> bytes:
    """All weights, and all that the optimizer remembers."""
    state = network.state()
    return plain_bytes([state["networks"], state["optimizer"]])


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam", "adadelta"])
def test_a_scaled_loss_does_not_scale_the_updates(optimizer: str) -> None:
    """Not even the update after which the scale doubles."""
    (network, scale), plain = scaled(1024.0, optimizer=optimizer), make(optimizer=optimizer)
    batch = random_batch(np.random.default_rng(2))
    scale.fitting = 1998
    for factor in (1024, 2048, 2048):
        assert float(network.train(batch).cost) == float(plain.train(batch).cost)
        assert scale.factor == factor
        assert everything(network) == everything(plain)


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam", "adadelta"])
def test_an_update_whose_gradient_overflows_is_skipped(optimizer: str) -> None:
    (network, scale), batch = scaled(1024.0, optimizer=optimizer), random_batch(np.random.default_rng(2))
    network.train(batch)
    scale.factor, before, skipped = 2.0**127, everything(network), 0
    network.train(batch)
    while scale.fitting == 0:
        skipped += 1
        assert scale.factor == 2.0 ** (127 - skipped)
        assert everything(network) == before
        assert np.isfinite(float(network.train(batch).cost))
    assert skipped > 0
    assert (scale.factor, scale.fitting) == (2.0 ** (127 - skipped), 1)
    assert everything(network) != before
    assert all(np.isfinite(part).all() for part in network.state()["networks"][0])


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_the_loss_scale_doubles_after_2000_updates_in_a_row_that_fit(value: float) -> None:
    scale, fine, overflow = LossScale(), torch.ones(3), torch.tensor([1.0, value, 1.0])
    assert all(scale.fits(fine) for _ in range(1999))
    assert scale.factor == 1024
    assert not scale.fits(overflow)
    assert scale.factor == 512
    assert all(scale.fits(fine) for _ in range(1999))
    assert scale.factor == 512
    assert scale.fits(fine)
    assert scale.factor == 1024
    assert all(scale.fits(fine) for _ in range(2000))
    assert scale.factor == 2048


def test_the_loss_scale_is_part_of_the_networks_state() -> None:
    (network, scale), (other, restored) = scaled(256.0), scaled(1024.0)
    scale.fitting = 7
    other.restore(network.state())
    assert (restored.factor, restored.fitting) == (256, 7)


def test_float16_has_a_loss_scale_and_other_types_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepqnetwork, "find_device", lambda *_, **__: torch.device("cpu"))
    for datatype in ("float16", "bfloat16", "tf32", "float32"):
        backend = BackendOptions(backend="gpu", datatype=datatype)
        network = DeepQNetwork(4, (4, 42, 42), DeepQNetworkOptions(), backend, 1)
        assert (network._scale is not None) == (datatype == "float16")


def test_the_first_updates_of_float16_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of bytes times gradients would not: pixels must be scaled before them."""
    monkeypatch.setattr(deepqnetwork, "find_device", lambda *_, **__: torch.device("cpu"))
    backend = BackendOptions(backend="gpu", datatype="float16")
    network, rng = DeepQNetwork(4, (4, 84, 84), DeepQNetworkOptions(), backend, 1), np.random.default_rng(0)
    for _ in range(3):
        before = network._online.master.clone()
        network.train(random_batch(rng, 84))
        assert not torch.equal(network._online.master, before)


# Dueling


def test_a_dueling_networks_file_is_that_of_a_plain_one() -> None:
    """It holds the streams as one plain layer, because other programs do not know streams."""
    rng = np.random.default_rng(1)
    network = make(dueling=True, optimizer="adam")
    network.train(random_batch(rng))
    layers = network.layers()
    assert [layer.params["W"].shape for layer in layers[3:]] == [(1024, 64), (4, 1024)]
    states = random_batch(rng).prestates
    seen = guided_q_value(read_network(layers), states, np.zeros(32, np.int64)).q_values
    assert network.predict(states) == pytest.approx(seen, abs=1e-5)


def test_a_dueling_network_goes_on_from_its_file() -> None:
    rng = np.random.default_rng(1)
    one, other = make(dueling=True, seed=1), make(dueling=True, seed=2)
    for _ in range(3):
        one.train(random_batch(rng))
    one.update_target_network()
    other.load_layers(one.layers(), "x.pkl")
    for _ in range(3):
        batch = random_batch(rng)
        assert other.train(batch).cost == pytest.approx(one.train(batch).cost, rel=1e-5)


@pytest.mark.parametrize("dueling", [True, False])
def test_a_dueling_networks_file_does_not_fit_a_plain_one(dueling: bool) -> None:
    word = "with" if dueling else "without"
    with pytest.raises(SnapshotError, match=f"pong_1.pkl does not fit: it was made {word} --dueling true"):
        make(dueling=not dueling).load_layers(make(dueling=dueling).layers(), "pong_1.pkl")


@pytest.mark.parametrize("datatype", ["float32", "bfloat16"])
def test_a_target_network_that_moves_a_part_of_the_way_is_an_average_and_acts(datatype: str) -> None:
    rng = np.random.default_rng(4)
    network = make(target_rate=0.25, datatype=datatype)
    expected = network._online.master.double()
    for _ in range(5):
        network.train(random_batch(rng))
        network.update_target_network()
        expected += 0.25 * (network._online.master - expected)
    assert abs(network._online.master - expected).max() > 1e-3
    torch.testing.assert_close(network._target.master.double(), expected, rtol=1e-5, atol=1e-7)
    loaded = make(seed=9, datatype=datatype)
    loaded.load_layers(network.layers(), "average.pkl")
    states = random_batch(rng).prestates
    assert np.array_equal(loaded.predict(states), network.predict(states))


def test_an_average_needs_a_target_network_to_be_in() -> None:
    with pytest.raises(OptionError, match="--target_rate moves a target network: it needs a --target_steps above 0"):
        make(target_rate=0.5, use_target=False)


def test_games_that_end_one_after_the_other_need_no_more_memory() -> None:
    network, states = make(), np.zeros((9, 4, 42, 42), np.uint8)
    for n in range(9, 0, -1):
        network.predict(states[:n])
    inputs = [len(array) for array in network._acting._inputs.values()]
    assert inputs == [9]


# What it refuses; test_network_contract.py has what it promises


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(backend="gpu"), "--backend gpu: PyTorch finds no GPU"),
        (dict(datatype="float16"), "--datatype float16 is for the GPU"),
        (dict(backend="cpu", datatype="float16"), "--datatype float16 is for the GPU"),
        (dict(backend="gpu", datatype="float64"), "--datatype float64 is for the CPU"),
        (dict(stochastic_round=True), "--stochastic_round: only Neon"),
        (dict(stochastic_round=10), "--stochastic_round: only Neon"),
        (dict(backend="mkl"), "--backend mkl: only Neon has it"),
        (dict(backend="gpu", device_id=2), "--device_id 2: this machine has 2 GPUs, counted from 0"),
    ],
)
def test_backends_that_are_not_there(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "device_id" in options)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(OptionError, match=message):
        DeepQNetwork(4, (4, 42, 42), DeepQNetworkOptions(), BackendOptions(**options), 1)


def test_the_cpu_is_the_default_without_a_gpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    caplog.set_level("INFO")
    network = DeepQNetwork(4, (4, 42, 42), DeepQNetworkOptions(), BackendOptions(), 1)
    assert network.device.type == "cpu"
    assert "Backend: cpu" in caplog.text


# Fast paths against plain ones


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam", "adadelta"])
@pytest.mark.parametrize("datatype", ["float32", "bfloat16"])
def test_an_optimizer_in_chunks_does_what_it_does_in_one_go(
    optimizer: str, datatype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    batches = [random_batch(rng) for _ in range(3)]
    flat = []
    for size in (1000, 10**9):
        monkeypatch.setattr(Optimizer, "chunk_size", size)
        network = make(datatype=datatype, optimizer=optimizer)
        for batch in batches:
            network.train(batch)
        assert torch.equal(network._online.weights, network._online.master.to(network._online.weights.dtype))
        flat.append(np.concatenate([layer.params["W"].ravel() for layer in network.layers()]))
        flat.append(np.concatenate([np.ravel(state) for layer in network.layers() for state in layer.states]))
    assert np.array_equal(flat[0], flat[2])
    assert np.array_equal(flat[1], flat[3])


@pytest.mark.parametrize("epsilon", [1e-8, 1.5e-4])
def test_adam_in_one_pass_is_adam(epsilon: float) -> None:
    """The fused kernel against the formula, which the GPU uses, and in float64 against plain arithmetic."""
    rng = np.random.default_rng(1)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        start = torch.from_numpy(rng.normal(size=500)).to(dtype)
        fused, plain = (Adam(start.clone(), start.clone(), 0.01, 0.95, epsilon) for _ in range(2))
        w, m, v = start.double().numpy().copy(), np.zeros(500), np.zeros(500)
        for t in range(1, 30):
            gradient = torch.from_numpy(rng.normal(size=500) * 10.0 ** rng.integers(-9, 2, 500)).to(dtype)
            fused.step(gradient.clone(), 1 / 32)
            plain._steps += 1
            plain._move_by_formula(plain._chunks[0], gradient.clone(), 1 / 32)
            g = gradient.double().numpy() / 32
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            w -= 0.01 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + epsilon)
        for own in (fused, plain):
            assert own.state()["steps"] == 29  # where a graph is replayed, as for `plain`, nothing else counts them
            np.testing.assert_allclose(own._chunks[0].weights.double().numpy(), w, rtol=0, atol=tolerance * 10)
            np.testing.assert_allclose(own.states[1].double().numpy(), v, rtol=tolerance, atol=0)


def test_the_learning_rate_falls_linearly_then_stays() -> None:
    options = DeepQNetworkOptions(learning_rate=0.01, learning_rate_end=0.002, learning_rate_decay_steps=100)
    rates = [options.learning_rate_at(step) for step in (0, 25, 50, 100, 1000)]
    assert rates == pytest.approx([0.01, 0.008, 0.006, 0.002, 0.002])
    assert DeepQNetworkOptions(learning_rate=0.01).learning_rate_at(10**9) == 0.01
    with pytest.raises(OptionError, match=r"^--learning_rate_end 0\.002 needs --learning_rate_decay_steps"):
        DeepQNetworkOptions(learning_rate_end=0.002)


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
def test_updates_take_steps_of_the_annealed_size(optimizer: str) -> None:
    moves = []
    for step in (0, 50, 100):
        network = make(optimizer=optimizer, learning_rate_decay_steps=100)
        before = network._online.master.clone()
        network.anneal(step)
        network.train(random_batch(np.random.default_rng(1)))
        moves.append((network._online.master - before).double())
    torch.testing.assert_close(moves[1], moves[0] / 2, rtol=1e-2, atol=1e-7)
    assert not moves[2].any()


@pytest.mark.parametrize("optimizer", [RMSProp, Adam])
def test_a_learning_rate_that_a_graph_reads_again_does_the_same(optimizer: type[Optimizer]) -> None:
    start, gradient = torch.linspace(-1, 1, 50), torch.linspace(-3, 2, 50)
    numbers, tensors = (optimizer(start.clone(), start.clone(), 0.1, 0.95, 1e-8) for _ in range(2))
    tensors.learning_rate = torch.zeros(())
    for own in (numbers, tensors):
        own.set_learning_rate(0.01)
        own.step(gradient, 0.5)
    torch.testing.assert_close(tensors._chunks[0].weights, numbers._chunks[0].weights, rtol=1e-6, atol=1e-7)


def test_tiny_averages_do_not_slow_an_update_down() -> None:
    """Below 1e-38 numbers are flushed to zero: processors multiply them some hundred times more slowly."""
    network = make()
    network._optimizer.states[0].fill_(1e-37)
    deltas = torch.zeros_like(network._online.gradient)
    for _ in range(60):
        network._optimizer.step(deltas, 1.0)
    assert not network._optimizer.states[0].any()


def test_what_comes_later_is_an_array() -> None:
    later = Later(torch.tensor([1.5, 2]))
    assert np.asarray(later).tolist() == [1.5, 2]
    assert np.asarray(later, np.float64).dtype == np.float64
