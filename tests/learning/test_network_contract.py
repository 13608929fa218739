"""What every Q-network promises: the same cases over PyTorch's, Neon's and the fake that other tests play with."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fakes import FakeNetwork, needs_neon
from simple_dqn.agent import Network
from simple_dqn.deepqnetwork import BackendOptions, DeepQNetwork, DeepQNetworkOptions
from simple_dqn.errors import OptionError, SnapshotError
from simple_dqn.learning.neon_network import NeonNetwork
from simple_dqn.replay_memory import Minibatch
from simple_dqn.saving.snapshot import Snapshot, plain_bytes, plain_value, read_snapshot, write_snapshot
from test_deepqnetwork import random_batch

QNetwork = DeepQNetwork | NeonNetwork
Maker = Callable[..., QNetwork]
LIBRARIES: dict[str, type[DeepQNetwork] | type[NeonNetwork]] = {"torch": DeepQNetwork, "neon": NeonNetwork}


def maker(library: str) -> Maker:
    """Makes networks on a library; the options of `DeepQNetworkOptions` are taken by name."""

    def make(
        actions: int = 4,
        shape: tuple[int, int, int] = (4, 42, 42),
        seed: int = 1,
        use_target: bool = True,
        **options: Any,
    ) -> QNetwork:
        backend = BackendOptions(library=library, backend="cpu")
        return LIBRARIES[library](actions, shape, DeepQNetworkOptions(**options), backend, seed, use_target)

    return make


LIBRARY = [pytest.param("torch"), pytest.param("neon", marks=needs_neon)]


@pytest.fixture(params=LIBRARY)
def make(request: pytest.FixtureRequest) -> Maker:
    return maker(request.param)


@pytest.fixture(params=[*LIBRARY, "fake"])
def network(request: pytest.FixtureRequest) -> Network:
    if request.param == "fake":
        return FakeNetwork()
    return maker(request.param)(actions=3)


def batch_of(n: int, seed: int = 0) -> Minibatch:
    return random_batch(np.random.default_rng(seed), actions=3, batch=n)


# All three: what the agent relies on


@pytest.mark.parametrize("n", [1, 5, 32, 70])
def test_predicts_any_number_of_states(network: Network, n: int) -> None:
    states = batch_of(n).prestates
    before = states.copy()
    q = network.predict(states)
    assert q.shape == (n, 3)
    assert np.issubdtype(q.dtype, np.floating)
    assert np.isfinite(q).all()
    assert np.array_equal(states, before)
    each = np.concatenate([network.predict(state[None]) for state in states[:3]])
    assert q[:3] == pytest.approx(each, abs=1e-6)  # whatever the company
    assert np.array_equal(network.predict(states), q)


def test_training_tells_cost_and_errors_and_is_counted(network: Network) -> None:
    batch = batch_of(32)
    before = deepcopy(batch)
    for number in (1, 2):
        result = network.train(batch)
        assert float(result.cost) > 0
        errors = np.asarray(result.errors)
        assert errors.shape == (32,)
        assert errors.dtype == np.float32
        assert network.train_iterations == number
        network.update_target_network()
    assert all(np.array_equal(now, then) for now, then in zip(batch, before, strict=True))


# Both that learn


def taken(q: NDArray[Any], batch: Minibatch) -> NDArray[Any]:
    return q[np.arange(len(batch.actions)), batch.actions]


def test_learns_what_it_is_told(make: Maker) -> None:
    batch = batch_of(32)._replace(terminals=np.ones(32, bool))
    network = make(actions=3)
    errors = [abs(network.train(batch).errors).mean() for _ in range(60)]
    assert errors[-1] < errors[0] / 5
    assert taken(network.predict(batch.prestates), batch) == pytest.approx(np.clip(batch.rewards[:, 0], -1, 1), abs=0.5)


@pytest.mark.parametrize(
    "options",
    [{}, {"min_reward": -9, "max_reward": 9}, {"discount_rate": 0.5}, {"target_exploration_rate": 0.2}],
    ids=str,
)
@pytest.mark.parametrize("multi_step", [1, 3])
def test_errors_are_q_less_target_before_clipping(make: Maker, options: dict[str, Any], multi_step: int) -> None:
    batch = random_batch(np.random.default_rng(0), actions=3, multi_step=multi_step)
    network = make(actions=3, **options)
    network.update_target_network()
    o, post = network.options, network.predict(batch.poststates)
    values = (1 - o.target_exploration_rate) * post.max(axis=1) + o.target_exploration_rate * post.mean(axis=1)
    expected = taken(network.predict(batch.prestates), batch)
    for i, steps in enumerate(batch.steps):
        target = 0.0 if batch.terminals[i] else float(values[i])
        for reward in batch.rewards[i, :steps].clip(o.min_reward, o.max_reward)[::-1]:
            target = float(reward) + o.discount_rate * target
        expected[i] -= target
    result = network.train(batch)
    assert result.errors == pytest.approx(expected, abs=1e-6)
    assert result.cost == pytest.approx((result.errors**2).mean() / 2, rel=1e-6)


@pytest.mark.parametrize("double_dqn", [True, False])
def test_targets_are_made_of_their_parts(make: Maker, double_dqn: bool) -> None:
    batch = random_batch(np.random.default_rng(0), actions=3, multi_step=3)
    network = make(actions=3, discount_rate=0.5, double_dqn=double_dqn, target_exploration_rate=0.1)
    part = Minibatch(*(field[:7] for field in tuple(batch) if field is not None))
    returns, discounts, values = map(
        np.concatenate, zip(network.target_arrays(batch), network.target_arrays(part), strict=True)
    )
    targets = returns + discounts * values
    q = taken(network.predict(batch.prestates), batch)
    assert targets[32:] == pytest.approx(targets[:7], abs=1e-6)
    assert network.train(batch).errors == pytest.approx(q - targets[:32], abs=1e-6)


def test_targets_that_the_memory_has_formed_are_taken_as_they_are(make: Maker) -> None:
    batch = batch_of(32)
    targets = np.linspace(-3, 3, 32, dtype=np.float32)  # beyond what rewards are clipped to
    network = make(actions=3)
    q = taken(network.predict(batch.prestates), batch)
    result = network.train(batch._replace(targets=targets, poststates=batch.poststates[:, :0]))
    assert result.errors == pytest.approx(q - targets, abs=1e-6)


@pytest.mark.parametrize("use_target", [True, False])
def test_target_network_moves_only_when_told(make: Maker, use_target: bool) -> None:
    batch = batch_of(32)._replace(terminals=np.zeros(32, bool))
    network = make(actions=3, use_target=use_target)

    def targets() -> NDArray[Any]:
        q = taken(network.predict(batch.prestates), batch)
        return q - network.train(batch).errors

    network.update_target_network()
    before = targets()
    moved = abs(targets() - before).max() > 1e-4
    assert moved is not use_target
    network.update_target_network()
    assert abs(targets() - before).max() > 1e-4


def test_weights_of_transitions_scale_their_gradients(make: Maker) -> None:
    """A weight of 0 is as good as no error; all other arithmetic is the same."""
    batch = batch_of(32)
    weights = np.ones(32, np.float32)
    weights[16:] = 0
    left_out = make(actions=3, optimizer="adadelta")
    left_out.train(batch._replace(weights=weights))
    half = make(actions=3, optimizer="adadelta", batch_size=16)
    half.train(Minibatch(*(field[:16] for field in tuple(batch) if field is not None)))
    for one, other in zip(left_out.layers(), half.layers(), strict=True):
        assert one.states[0] * 4 == pytest.approx(other.states[0], rel=1e-3, abs=1e-12)  # a mean over twice as many


def test_a_smaller_batch_is_a_batch(make: Maker) -> None:
    batch, (large, fitting) = batch_of(7), (make(actions=3, batch_size=n) for n in (32, 7))
    for _ in range(3):
        one, other = large.train(batch), fitting.train(batch)
        assert one.cost == pytest.approx(other.cost, rel=1e-5)
        assert one.errors == pytest.approx(other.errors, abs=1e-6)


def test_same_seed_same_bits_and_another_seed_others(make: Maker) -> None:
    snapshots = []
    for seed in (3, 3, 4):
        network = make(actions=3, seed=seed)
        network.train(batch_of(32))
        snapshots.append(network.layers())
    for one, same, other in zip(*snapshots, strict=True):
        assert np.array_equal(one.params["W"], same.params["W"])
        assert np.array_equal(one.states[0], same.states[0])
        assert not np.array_equal(one.params["W"], other.params["W"])


@pytest.mark.parametrize(("width", "height"), [(7, 84), (84, 35), (1, 1)])
def test_screens_too_small_are_refused(make: Maker, width: int, height: int) -> None:
    with pytest.raises(OptionError, match=r"too small for the network.*at least 36"):
        make(shape=(4, height, width))


# Snapshots, from one to itself and to the other


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam", "adadelta"])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("written", LIBRARY)
@pytest.mark.parametrize("read", LIBRARY)
def test_a_snapshot_goes_on_in_either(
    tmp_path: Path, written: str, read: str, optimizer: str, batch_norm: bool
) -> None:
    options = dict(actions=3, optimizer=optimizer, batch_norm=batch_norm)
    one, other = maker(written)(**options), maker(read)(seed=9, **options)
    for n in range(2):
        one.train(batch_of(32, n))
    one.update_target_network()
    write_snapshot(tmp_path / "a.pkl", Snapshot(one.layers(), (4, 42, 42), {}))
    other.load_layers(read_snapshot(tmp_path / "a.pkl").layers, "a.pkl")
    write_snapshot(tmp_path / "b.pkl", Snapshot(other.layers(), (4, 42, 42), {}))
    assert (tmp_path / "a.pkl").read_bytes() == (tmp_path / "b.pkl").read_bytes()
    batch = batch_of(32, 2)
    q = one.predict(batch.prestates)
    assert other.predict(batch.prestates) == pytest.approx(q, abs=1e-5 * float(abs(q).max()))
    if read == written:
        assert np.array_equal(other.predict(batch.prestates), q)
    if optimizer != "adam":  # Neon's format does not hold how often Adam has stepped
        assert one.train(batch).cost == pytest.approx(other.train(batch).cost, rel=1e-5)
        assert other.train(batch).cost == pytest.approx(one.train(batch).cost, rel=2e-3 if batch_norm else 1e-5)


@needs_neon
@pytest.mark.parametrize("optimizer", ["rmsprop", "adam", "adadelta"])
def test_both_start_and_learn_alike(optimizer: str) -> None:
    networks = [maker(library)(actions=3, optimizer=optimizer) for library in LIBRARIES]
    for torchs, neons in zip(*(network.layers() for network in networks), strict=True):
        assert (torchs.type, torchs.config) == (neons.type, neons.config)
        assert np.array_equal(torchs.params["W"], neons.params["W"])
    for n in range(5):
        ours, theirs = (network.train(batch_of(32, n)) for network in networks)
        assert ours.cost == pytest.approx(theirs.cost, rel=1e-5)
        assert ours.errors == pytest.approx(theirs.errors, abs=5e-6)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"actions": 6}, "it has 6 actions, the game 4"),
        ({"shape": (4, 84, 84)}, "its screens are not 42x42"),
        ({"shape": (2, 42, 42)}, "its states have 2 screens, here 4"),
        ({"batch_norm": True}, "it was made with --batch_norm true"),
        ({"actions": 6, "shape": (4, 84, 84)}, "it has 6 actions, the game 4; its screens are not 42x42"),
    ],
)
def test_another_networks_snapshot_is_refused(make: Maker, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(SnapshotError, match=f"pong_1.pkl does not fit: {message}"):
        make().load_layers(make(**changed).layers(), "pong_1.pkl")


def test_weights_that_are_no_numbers_are_refused(make: Maker) -> None:
    layers = make().layers()
    layers[2].params["W"][0, 0] = np.nan
    with pytest.raises(SnapshotError, match="is damaged: it holds weights that are NaN or infinite"):
        make().load_layers(layers, "pong_1.pkl")


# States, as checkpoints have them


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam", "adadelta"])
@pytest.mark.parametrize("use_target", [True, False])
def test_goes_on_from_its_state_bit_for_bit(make: Maker, optimizer: str, use_target: bool) -> None:
    options = dict(actions=3, optimizer=optimizer, batch_norm=True, use_target=use_target)
    one, other = make(**options), make(seed=9, **options)
    for n in range(2):
        one.train(batch_of(32, n))
    other.restore(plain_value(plain_bytes(one.state())))
    assert other.train_iterations == 2
    for n in range(2, 4):
        assert one.train(batch_of(32, n)).cost == other.train(batch_of(32, n)).cost
    assert plain_bytes(one.state()) == plain_bytes(other.state())


@pytest.mark.parametrize("had_target", [True, False])
def test_a_state_keeps_what_was_learned_whether_or_not_there_is_a_target_network(make: Maker, had_target: bool) -> None:
    one = make(actions=3, use_target=had_target)
    one.update_target_network()
    one.train(batch_of(32))
    other = make(actions=3, seed=9, use_target=not had_target)
    other.restore(one.state())
    states = batch_of(5).prestates
    assert np.array_equal(other.predict(states), one.predict(states))
    assert other.train(batch_of(32, 1)).errors.shape == (32,)


@pytest.mark.parametrize("from_snapshot", [True, False])
def test_another_optimizer_starts_from_scratch(
    make: Maker, from_snapshot: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    adam, network = make(actions=3, optimizer="adam"), make(actions=3, seed=9)
    adam.train(batch_of(32))
    if from_snapshot:
        network.load_layers(adam.layers(), "adam.pkl")
        assert "The optimizer in adam.pkl is not rmsprop, so it starts from scratch" in caplog.text
    else:
        network.restore(adam.state())
        assert "The optimizer was " in caplog.text
        assert "The new one starts from scratch" in caplog.text
    assert network.layers()[0].states == []
    assert np.array_equal(network.predict(batch_of(5).prestates), adam.predict(batch_of(5).prestates))


def test_another_networks_state_is_refused(make: Maker) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (either library's own words)
        make(actions=6).restore(make(actions=4).state())
