"""NeonNetwork beyond the contract: Neon's own figures and files, and what is said where Neon is not there."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import main
from fakes import needs_neon
from simple_dqn.deepqnetwork import BackendOptions, DeepQNetworkOptions
from simple_dqn.errors import OptionError
from simple_dqn.learning.neon_network import NeonNetwork, find_backend, load_neon
from simple_dqn.saving.snapshot import Snapshot, read_snapshot, write_snapshot
from test_deepqnetwork import NAMES, Fixture, needs_fixtures, random_batch


def make(actions: int = 4, size: int = 42, backend: BackendOptions | None = None, **options: Any) -> NeonNetwork:
    backend = backend or BackendOptions(library="neon", backend="cpu")
    return NeonNetwork(actions, (4, size, size), DeepQNetworkOptions(**options), backend, seed=1)


# Neon's own figures and files


@needs_neon
@needs_fixtures
@pytest.mark.parametrize("name", [name for name in NAMES if name != "d84_rmsprop"])
def test_does_what_the_original_did_on_neon(name: str) -> None:
    fixture = Fixture(name)
    network = make(fixture.outputs["q_before"].shape[-1], fixture.size, **fixture.options)
    for own, neon in zip(network.layers(), fixture.before.layers, strict=True):
        assert (own.type, own.config) == (neon.type, neon.config)
        assert all(np.array_equal(own.params[key], neon.params[key]) for key in neon.params)
        assert not any(own.states)
    costs = fixture.train(network)
    first = 5 if "_bn_" in name else 20
    assert costs[:first] == pytest.approx(fixture.outputs["costs"][:first], rel=2e-5 if "adadelta" in name else 2e-6)
    scale = float(abs(fixture.outputs["q_after"]).max())
    assert fixture.q(network) == pytest.approx(fixture.outputs["q_after"], abs=1e-5 * scale)


@needs_neon
@needs_fixtures
@pytest.mark.parametrize("name", ["s42_rmsprop", "s42_adadelta"])
def test_in_float64_it_does_so_to_the_last_digits(name: str) -> None:
    fixture = Fixture(name)
    backend = BackendOptions(library="neon", backend="cpu", datatype="float64")
    network = make(fixture.outputs["q_before"].shape[-1], fixture.size, backend, **fixture.options)
    network.load_layers(fixture.before.layers, "before.pkl")  # Neon rounds none of the weights that it draws
    network._target.layers_to_optimize[0].W[:] = 0  # it is synced before the first step
    assert fixture.train(network) == pytest.approx(fixture.outputs["f64_costs"], rel=1e-12)
    assert fixture.q(network) == pytest.approx(fixture.outputs["f64_q_after"], abs=1e-12)


@needs_neon
@pytest.mark.parametrize("batch_norm", [False, True])
def test_neon_itself_reads_what_is_written_and_writes_what_is_read(tmp_path: Path, batch_norm: bool) -> None:
    options: dict[str, Any] = dict(actions=3, optimizer="adam", batch_norm=batch_norm)
    one, other = make(**options), make(**options)
    one.train(random_batch(np.random.default_rng(1), actions=3))
    write_snapshot(tmp_path / "ours.pkl", Snapshot(one.layers(), (4, 42, 42), {"game": "pong", "epoch": 3}))
    with other._at_work():
        other._online.load_params(str(tmp_path / "ours.pkl"))
    states = random_batch(np.random.default_rng(2)).prestates
    assert np.array_equal(one.predict(states), other.predict(states))
    with other._at_work():
        other._online.save_params(str(tmp_path / "neons.pkl"))
    # Under today's NumPy Neon writes a name that the original cannot load.
    content = (tmp_path / "neons.pkl").read_bytes().replace(b"numpy._core.", b"numpy.core.")
    (tmp_path / "neons.pkl").write_bytes(content)
    for mine, theirs in zip(one.layers(), read_snapshot(tmp_path / "neons.pkl").layers, strict=True):
        assert (mine.type, mine.config) == (theirs.type, theirs.config)
        assert all(np.array_equal(mine.params[key], theirs.params[key]) for key in mine.params)
        assert np.array_equal(np.array(mine.states), np.array(theirs.states))


@needs_neon
def test_two_networks_do_not_disturb_each_other() -> None:
    states = random_batch(np.random.default_rng(1)).prestates
    one = make()
    q = one.predict(states)
    make(batch_size=8, backend=BackendOptions(library="neon", backend="cpu", datatype="float64"))
    assert np.array_equal(one.predict(states), q)
    one.train(random_batch(np.random.default_rng(1)))


@needs_neon
@pytest.mark.parametrize(
    ("datatype", "result"), [("float16", "float32"), ("float32", "float32"), ("float64", "float64")]
)
def test_precisions(datatype: str, result: str) -> None:
    network = make(backend=BackendOptions(library="neon", backend="cpu", datatype=datatype))
    batch = random_batch(np.random.default_rng(1))
    assert network.predict(batch.prestates).dtype == result
    assert network.train(batch).cost == pytest.approx(0.35, abs=0.2)
    assert network.layers()[0].params["W"].dtype == datatype


@needs_neon
def test_batches_that_neon_cannot_take() -> None:
    with pytest.raises(ValueError, match="the minibatch has 9 transitions, but Neon's layers need 8"):
        make(batch_size=8).train(random_batch(np.random.default_rng(1), batch=9))
    with pytest.raises(ValueError, match="the minibatch has 7 transitions"):
        make(batch_size=8, batch_norm=True).train(random_batch(np.random.default_rng(1), batch=7))


# What is not there


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(datatype="bfloat16"), "--datatype bfloat16: Neon has float16, float32 and float64"),
        (dict(datatype="tf32"), "--datatype tf32: Neon has"),
        (dict(backend="gpu", datatype="float64"), "--datatype float64 is for the CPU"),
    ],
)
def test_options_that_neon_has_not(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        BackendOptions(library="neon", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(target_rate=0.5), "--target_rate: only with PyTorch; use --library torch"),
        (dict(dueling=True), "--dueling: only PyTorch's network has streams; use --library torch"),
    ],
)
def test_networks_that_neon_has_not(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make(**options)


@needs_neon
@pytest.mark.parametrize(
    ("backend", "gpus", "message"),
    [
        (BackendOptions(library="neon", backend="gpu"), 0, "--backend gpu --device_id 0: Neon finds no GPU here"),
        (BackendOptions(library="neon", backend="gpu", device_id=2), 2, "--device_id 2: Neon finds 2 GPUs, counted"),
        (BackendOptions(library="neon", backend="mkl"), 0, "--backend mkl: Neon was built here without MKL"),
    ],
)
def test_backends_that_are_not_there(
    monkeypatch: pytest.MonkeyPatch, backend: BackendOptions, gpus: int, message: str
) -> None:
    util = load_neon().backends.util
    monkeypatch.setattr(util.check_gpu, "get_device_count", lambda: gpus)
    monkeypatch.setattr(util.check_mkl, "get_mkl_lib", lambda: 0)
    with pytest.raises(OptionError, match=message):
        make(backend=backend)


@needs_neon
def test_a_backend_that_neon_makes_nothing_of_gets_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("mklEngine is broken\nat line 1")

    neon = load_neon()
    monkeypatch.setattr(neon.backends.util.check_mkl, "get_mkl_lib", lambda: 1)
    monkeypatch.setattr(neon.backends, "gen_backend", fail)
    with pytest.raises(OptionError, match=r"mkl: Neon cannot use it here \(mklEngine is broken\); --backend"):
        make(backend=BackendOptions(library="neon", backend="mkl"))


@needs_neon
@pytest.mark.parametrize(
    ("gpus", "datatype", "found"), [(0, "float32", "cpu"), (1, "float32", "gpu"), (1, "float64", "cpu")]
)
def test_not_asked_for_the_gpu_serves_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, gpus: int, datatype: str, found: str
) -> None:
    monkeypatch.setattr(load_neon().backends.util.check_gpu, "get_device_count", lambda: gpus)
    assert find_backend(BackendOptions(library="neon", datatype=datatype)) == found


@needs_neon
def test_stochastic_rounding_is_passed_on_and_the_log_says_where_it_is_in_vain(
    caplog: pytest.LogCaptureFixture,
) -> None:
    network = make(backend=BackendOptions(library="neon", backend="cpu", stochastic_round=10))
    assert network._optimizer.stochastic_round == 10
    assert "--stochastic_round does nothing here" in caplog.text


@needs_neon
@pytest.mark.parametrize("datatype", ["float16", "float32", "float64"])
def test_the_log_warns_of_float16_where_it_takes_long(datatype: str, caplog: pytest.LogCaptureFixture) -> None:
    make(backend=BackendOptions(library="neon", backend="cpu", datatype=datatype))
    assert ("--datatype float16 is for the GPU" in caplog.text) == (datatype == "float16")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "Neon is not installed. docs/neon.md explains how"),
        ("", r"cannot be loaded \(No module named 'neon.backends'\)"),  # another package of that name
        ("import no_such_package", r"cannot be loaded \(No module named 'no_such_package'\)"),
        ("print('ERROR: Version information not found.'); raise SystemExit(1)", r"cannot be loaded \(ERROR: Version"),
        ("raise AttributeError('numpy has no float')", r"cannot be loaded \(numpy has no float\)"),
    ],
)
def test_without_neon_one_line_says_what_it_is_and_where_it_comes_from(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: str | None,
    message: str,
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "neon"]:
        monkeypatch.delitem(sys.modules, name)
    if content is None:
        monkeypatch.setitem(sys.modules, "neon", None)
    else:
        (tmp_path / "neon").mkdir()
        (tmp_path / "neon" / "__init__.py").write_text(content)
        monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(OptionError, match=message) as error:
        load_neon()
    assert "https://github.com/NervanaSystems/neon" in str(error.value)
    assert main.main(["pong", "--library", "neon", "--random_seed", "1"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: --library neon: ")
    for name in [name for name in sys.modules if name.split(".")[0] == "neon"]:
        del sys.modules[name]  # what monkeypatch knows nothing of


# The program on Neon

SHORT = ["--random_steps", "60", "--train_steps", "40", "--test_steps", "20", "--epochs", "1", "--random_seed", "7"]
SHORT += ["--screen_width", "40", "--screen_height", "36", "--batch_size", "8", "--backend", "cpu"]
FILES = ["--csv_file", "results/pong.csv", "--save_weights_prefix", "snapshots/pong"]


@needs_neon
def test_train_resume_test_and_look_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO)
    main.run(["pong", *SHORT, *FILES, "--library", "neon"])
    assert "Backend: Neon's NervanaCPU, float32" in caplog.text
    main.run(["--resume", "snapshots/pong", "--epochs", "2", "--backend", "cpu"])
    assert caplog.text.count("Backend: Neon's NervanaCPU") == 2  # as before, though not said
    assert "Continuing from snapshots/pong_1.checkpoint, exactly where it stopped" in caplog.text
    with pytest.raises(
        OptionError, match=r"--library torch does not go with --resume: .*pong_2.checkpoint was trained"
    ):
        main.run(["--resume", "snapshots/pong", "--epochs", "3", "--backend", "cpu", "--library", "torch"])
    facts = read_snapshot(Path("snapshots/pong_2.pkl")).facts
    assert (facts["options"]["library"], facts["epoch"], facts["weight_updates"]) == ("neon", 2, 20)
    test = ["--load_weights", "snapshots/pong_2.pkl", "--backend", "cpu", "--batch_size", "1", "--library"]
    main.run([*test, "torch", "--random_steps", "0", "--train_steps", "0", "--epochs", "1", "--test_steps", "20"])
    main.run([*test, "neon", "--play_games", "1", "--visualization_file", "page.html"])
    assert "Loading weights from snapshots/pong_2.pkl" in caplog.text
    assert Path("page.html").stat().st_size > 10_000
