"""The GPU's part, with stand-ins for the GPU. tests/fake_gpu.py says what they can and cannot show."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any
from unittest.mock import Mock, call

import numpy as np
import pytest
import torch
from torch import Tensor

from fake_gpu import FakeGPU, OptimizersOfGPU, describe_gpu, let_graphs_record, pretend_gpu
from simple_dqn import deepqnetwork
from simple_dqn.deepqnetwork import BackendOptions, Batch, DeepQNetwork, DeepQNetworkOptions, find_device
from simple_dqn.errors import OptionError
from simple_dqn.learning import cuda
from simple_dqn.learning.cuda import DeviceScreens, Graph
from simple_dqn.learning.library import library_of
from simple_dqn.replay.prioritized import memory_class
from simple_dqn.replay.returns import refresh_targets
from simple_dqn.replay_memory import ReplayMemory, ReplayMemoryOptions
from simple_dqn.statistics import Statistics
from test_deepqnetwork import make, random_batch


def batch_of(number: int) -> Batch:
    fields = [torch.full((2,), 10.0 * number + field) for field in range(len(Batch._fields))]
    return Batch(*fields)


def results_of(batch: Batch) -> tuple[Tensor, Tensor]:
    """A cost and errors that depend on every field."""
    total = sum(field * 7**i for i, field in enumerate(batch))
    assert isinstance(total, Tensor)
    return total.sum(), total + 1


class FakeCUDA:
    """Computes at once on a stream. In a recording it computes nothing; a replay computes in the tensors recorded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tape: list[str] = []
        self.batches: list[Batch] = []  # that were computed with or recorded
        self.recording = False
        self._where = "main"
        monkeypatch.setattr(torch.cuda, "Stream", lambda: FakeStream("side", self.tape))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: FakeStream("main", self.tape))
        monkeypatch.setattr(torch.cuda, "stream", self._stream)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: self)
        monkeypatch.setattr(torch.cuda, "graph", self._graph)

    @contextmanager
    def _stream(self, stream: FakeStream) -> Iterator[None]:
        self._where = stream.name
        yield
        self._where = "main"

    @contextmanager
    def _graph(self, graph: FakeCUDA, stream: FakeStream) -> Iterator[None]:
        assert (graph, stream.name) == (self, "side")
        self.recording = True
        yield
        self.recording = False

    def compute(self, batch: Batch) -> tuple[Tensor, Tensor]:
        self.batches.append(batch)
        self.tape.append("record" if self.recording else f"compute on {self._where}")
        if not self.recording:
            return results_of(batch)
        self.results = torch.tensor(torch.nan), torch.full((2,), torch.nan)
        return self.results

    def replay(self) -> None:
        self.tape.append("replay")
        for result, value in zip(self.results, results_of(self.batches[-1]), strict=True):
            result.copy_(value)


class FakeStream:
    def __init__(self, name: str, tape: list[str]) -> None:
        self.name, self.tape = name, tape

    def wait_stream(self, stream: FakeStream) -> None:
        self.tape.append(f"{self.name} waits for {stream.name}")


def test_updates_are_computed_three_times_then_recorded_once_and_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCUDA(monkeypatch)
    graph = Graph(lambda *fields: cuda.compute(Batch(*fields)))
    batches = [batch_of(number) for number in range(7)]
    found = [graph(*batch) for batch in batches]
    eager = ["side waits for main", "compute on side", "main waits for side"]
    assert cuda.tape == [*eager * 3, "record", *["replay"] * 4]
    for used, given in zip(cuda.batches[:3], batches, strict=False):
        assert all(own is tensor for own, tensor in zip(used, given, strict=True))
    for number, (cost, errors) in enumerate(found):  # of all calls, after the last: a later call changes none of them
        expected: Any = results_of(batch_of(number))
        assert torch.equal(cost, expected[0])
        assert torch.equal(errors, expected[1])
    for number, batch in enumerate(batches):
        assert all(torch.equal(now, then) for now, then in zip(batch, batch_of(number), strict=True))
    recorded = cuda.batches[3]
    assert all(own.data_ptr() != given.data_ptr() for own, given in zip(recorded, batches[3], strict=True))
    assert all(torch.equal(own, given) for own, given in zip(recorded, batches[-1], strict=True))


# The network on a GPU, without values


OPTIONS: list[dict[str, Any]] = [{}, {"double_dqn": True}, {"dueling": True}, {"batch_norm": True}, {"clip_error": 0.0}]
GPU = torch.device("cuda", 0)


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGPU]:
    with pretend_gpu(monkeypatch) as gpu:
        yield gpu


def make_on_gpu(datatype: str = "float32", **options: Any) -> DeepQNetwork:
    backend = BackendOptions(backend="gpu", datatype=datatype)
    return DeepQNetwork(4, (4, 42, 42), DeepQNetworkOptions(**options), backend, 1)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("optimizer", ["rmsprop", "adam", "adadelta"])
@pytest.mark.parametrize("datatype", ["float32", "tf32", "bfloat16", "float16"])
def test_an_update_computes_on_the_gpu_alone_and_waits_for_nothing(
    datatype: str, optimizer: str, options: dict[str, Any], fake_gpu: FakeGPU
) -> None:
    """Only float16 waits: its loss scale looks at each gradient."""
    network = make_on_gpu(datatype, optimizer=optimizer, **options)
    batch = random_batch(np.random.default_rng(1))
    fake_gpu.waits.clear()
    for step in range(3):
        network.anneal(step)
        network.update_target_network()
        cost, errors = network.train(batch)
        assert (cost.device, cost.dtype, cost.shape) == (GPU, torch.float32, ())
    assert fake_gpu.waits == (["__bool__"] * 3 if datatype == "float16" else [])
    assert np.asarray(errors).shape == (32,)
    low = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(datatype, torch.float32)
    assert network._online.weights.dtype == network._online.gradient.dtype == low
    for tensor in (*network._online._kept, *network._optimizer.states):
        assert (tensor.device, tensor.dtype) == (GPU, torch.float32)
    assert network.predict(batch.prestates).dtype == np.float32


@pytest.mark.parametrize(
    ("options", "waits"),
    [
        ({}, []),
        (dict(multi_step=3), []),
        (dict(prioritized_replay=True), ["cpu"] * 5),  # the next minibatch depends on these errors
        (dict(return_lambda=0.5), ["cpu"] * 9),  # one for each minibatch of the memory's 300 transitions
    ],
    ids=str,
)
def test_minibatches_from_screens_on_the_gpu(options: dict[str, Any], waits: list[str], fake_gpu: FakeGPU) -> None:
    memory_options = ReplayMemoryOptions(replay_size=400, **options)
    memory = memory_class(memory_options)(memory_options, (42, 42), 32, np.random.default_rng(1), lanes=2)
    network = make_on_gpu()
    network.hold_screens(memory)
    for n in range(150):
        for lane in (0, 1):
            memory.add(n % 4, 1.0, np.zeros((42, 42), np.uint8), n % 50 == 49, lane)
    fake_gpu.waits.clear()
    refresh_targets(memory, network)
    for _ in range(5):
        batch = memory.minibatch()
        assert batch.prestates.device == GPU
        assert batch.prestates.shape == (32, 4, 42, 42)
        assert batch.poststates.shape == (32, 0 if memory.targets is not None else 4, 42, 42)
        _, errors = network.train(batch)
        memory.update(batch.indexes, errors)
    assert fake_gpu.waits == waits


def test_statistics_wait_for_the_gpu_once_in_a_hundred_updates(fake_gpu: FakeGPU) -> None:
    network, statistics = make_on_gpu(), Statistics(Mock())
    fake_gpu.waits.clear()
    for _ in range(250):
        statistics.on_train(network.train(random_batch(np.random.default_rng(1), batch=2)).cost)
    assert fake_gpu.waits == ["__float__"] * 2


# Against the CPU, with values


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("optimizer", ["rmsprop", "adam", "adadelta"])
@pytest.mark.parametrize("datatype", ["float32", "bfloat16"])
def test_replays_of_a_recorded_update_do_what_updates_do(
    datatype: str, optimizer: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with another learning rate, another target network and after another state was restored."""
    let_graphs_record(monkeypatch)
    options = options | dict(optimizer=optimizer, learning_rate_decay_steps=20)
    rng = np.random.default_rng(1)
    batches = [random_batch(rng, batch=8) for _ in range(8)]
    found = []
    with OptimizersOfGPU():
        for recorded in (False, True):
            network = make(datatype=datatype, **options)
            network._optimizer.learning_rate = torch.zeros(())  # as on a GPU
            graph = Graph(network._learn_from)
            if recorded:
                network._update = graph
            results: list[Any] = []
            state: Any = None
            for step, batch in enumerate(batches):
                network.anneal(step)
                if step % 3 == 0:
                    network.update_target_network()
                if step == 6:
                    network.restore(state)
                results.append(network.train(batch))
                if step == 2:
                    state = deepcopy(network.state())
            found.append([[*map(float, np.append(errors, cost))] for cost, errors in results])
            found.append([[*weights] for weights in network.state()["networks"][0]])
    assert graph._graph is not None
    assert found[0] == found[2]
    assert all(np.array_equal(plain, replayed) for plain, replayed in zip(found[1], found[3], strict=True))


@pytest.mark.parametrize(
    "options", [{}, dict(multi_step=3), dict(prioritized_replay=True), dict(return_lambda=0.5)], ids=str
)
@pytest.mark.parametrize("most_collected", [1, 7, 256])
def test_screens_held_where_the_network_is_give_the_same_training(
    options: dict[str, Any], most_collected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DeviceScreens, "most_collected", most_collected)
    networks, memories = [], []
    for held in (False, True):
        rng = np.random.default_rng(1)
        memory_options = ReplayMemoryOptions(replay_size=100, **options)
        memory = memory_class(memory_options)(memory_options, (42, 42), 8, rng, lanes=3)
        if held:
            memory.screens = DeviceScreens(memory.screens.shape, torch.device("cpu"))
        network = make()
        for n in range(180):  # the rings are written twice
            screen = rng.integers(0, 256, (42, 42), np.uint8)
            memory.add(int(rng.integers(4)), 1.0, screen, bool(rng.random() < 0.05), n % 3)
            screen.fill(0)  # it was copied
            if n in (90, 91, 150, 179):
                refresh_targets(memory, network)
                batch = memory.minibatch()
                memory.update(batch.indexes, network.train(batch).errors)
        networks.append(network)
        memories.append(memory)
    assert torch.equal(networks[0]._online.master, networks[1]._online.master)
    states = memories[1].minibatch().prestates  # a tensor
    assert np.array_equal(network.predict(states), network.predict(states.numpy()))
    other = ReplayMemory(ReplayMemoryOptions(replay_size=100), (42, 42), 8, rng, lanes=3)  # as from a checkpoint
    other.screens = DeviceScreens(other.screens.shape, torch.device("cpu"))
    for lane in range(3):
        numbers = range(30, 60)
        arrays = [memory.transitions(lane, numbers) for memory in memories]
        assert all(np.array_equal(*pair) for pair in zip(*arrays, strict=True))
        other.set_transitions(lane, numbers, arrays[0])
        assert all(map(np.array_equal, other.transitions(lane, numbers), arrays[0]))


# What a GPU lacks


def test_an_update_that_cannot_be_recorded_is_computed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as a loss of one's own that looks at a value. The stream is the former one again."""
    caplog.set_level("INFO")
    set_stream = let_graphs_record(monkeypatch)
    batches = [random_batch(np.random.default_rng(n)) for n in range(6)]
    networks = [make(), make()]

    def look_and_learn(*fields: Tensor) -> tuple[Tensor, Tensor]:
        assert fields[2].sum().item()
        return networks[1]._learn_from(*fields)

    networks[1]._update = Graph(look_and_learn)
    for network in networks:
        for batch in batches:
            network.train(batch)
    assert torch.equal(*(network._online.master for network in networks))
    assert set_stream.call_args_list == [call(torch.cuda.current_stream())]
    assert [record.message for record in caplog.records if "graph" in record.message] == [
        "Updates cannot be recorded as a CUDA graph, so they are slower: CUDA error: operation not permitted when "
        "stream is capturing"
    ]


@pytest.mark.parametrize(("major", "used"), [(7, "float32"), (8, None)])
@pytest.mark.parametrize("datatype", ["tf32", "bfloat16", "float16", "float32"])
def test_a_datatype_that_the_gpu_lacks(
    datatype: str, major: int, used: str | None, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, fake_gpu: FakeGPU,
) -> None:  # fmt: skip
    caplog.set_level("INFO")
    describe_gpu(monkeypatch, "Tesla T4", major)
    network = make_on_gpu(datatype)
    lacks = used is not None and datatype in ("tf32", "bfloat16")
    assert ("Tesla T4 has no " + datatype + ": computing in float32" in caplog.text) == lacks
    assert f"Backend: cuda:0 (Tesla T4), {used if lacks else datatype}" in caplog.text
    assert torch.backends.cuda.matmul.allow_tf32 == (datatype == "tf32" and not lacks)
    assert (network._online.weights.dtype == torch.float32) == (lacks or datatype in ("tf32", "float32"))


@pytest.mark.parametrize(
    ("free", "full", "text"),
    [
        (2**30 + 400 * 42 * 42, False, "The replay memory's screens are on the GPU"),
        (2**30 + 10, False, "screens stay in main memory: they need 0.0 GiB, and the GPU has 0.0 GiB for them"),
        (2**40, True, "screens stay in main memory: they need 0.0 GiB, and the GPU has 1023.0 GiB for them"),
    ],
)
def test_screens_that_the_gpu_has_no_room_for_stay_in_memory(
    free: int, full: bool, text: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    fake_gpu: FakeGPU,
) -> None:  # fmt: skip
    caplog.set_level("INFO")
    describe_gpu(monkeypatch, free=free)
    memory = ReplayMemory(ReplayMemoryOptions(replay_size=400), (42, 42), 32, np.random.default_rng(1))
    network = make_on_gpu()
    if full:  # whatever the GPU said before
        error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        monkeypatch.setattr(torch, "empty", Mock(side_effect=error))
    network.hold_screens(memory)
    assert text in caplog.text
    assert isinstance(memory.screens, np.ndarray) == ("stay" in text)


def test_the_chosen_gpu_is_the_current_one(monkeypatch: pytest.MonkeyPatch, fake_gpu: FakeGPU) -> None:
    """Streams and graphs are made on the current one."""
    chosen = describe_gpu(monkeypatch)
    monkeypatch.setattr(deepqnetwork, "find_device", lambda *_, **__: torch.device("cuda", 1))
    make_on_gpu()
    assert chosen == [torch.device("cuda", 1)]


OLD_DRIVER = (
    "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040). Please update your GPU "
    "driver or install a PyTorch version that has been compiled with your version of the CUDA driver."
)
NO_KERNEL = "CUDA error: no kernel image is available for execution on the device"


def cuda_with_an_old_driver() -> bool:
    warnings.warn(OLD_DRIVER + " (Triggered internally at /pytorch/c10/cuda/CUDAFunctions.cpp:119.)", stacklevel=1)
    return False


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("old driver", OLD_DRIVER.rstrip(".")),
        ("old GPU", NO_KERNEL),
        ("no CUDA", f"PyTorch {torch.__version__} was built without CUDA. Install the build with CUDA"),
        ("Apple", "Apple's GPU is not supported, because it has no float64, which Adam counts in"),
    ],
)
def test_a_gpu_that_cannot_be_used(
    fault: str, problem: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """The CPU computes, and the log says why; with --backend gpu the program ends."""
    caplog.set_level("INFO")
    monkeypatch.setattr(torch.version, "cuda", None if fault == "no CUDA" else "13.0")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: fault == "Apple")
    monkeypatch.setattr(cuda, "_NVIDIA_DRIVER", tmp_path if fault == "no CUDA" else tmp_path / "none")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: fault == "old GPU")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    if fault == "old driver":
        monkeypatch.setattr(torch.cuda, "is_available", cuda_with_an_old_driver)
    if fault == "old GPU":
        monkeypatch.setattr(torch, "ones", Mock(side_effect=torch.AcceleratorError(NO_KERNEL + "\nCompile with")))
    assert library_of(BackendOptions())[1] is False
    assert not caplog.records
    DeepQNetwork(4, (4, 42, 42), DeepQNetworkOptions(), BackendOptions(), 1)
    assert [r.message for r in caplog.records if "GPU" in r.message] == [f"The GPU is not used: {problem}"]
    with pytest.raises(OptionError, match=f"^--backend gpu: {re.escape(problem)}; use --backend cpu"):
        find_device(BackendOptions(backend="gpu"))
    with pytest.raises(OptionError, match=re.escape(f"for the GPU, and none was found ({problem}): use bfloat16")):
        find_device(BackendOptions(datatype="tf32"))
    caplog.clear()
    find_device(BackendOptions(backend="cpu"), log=True)
    assert not caplog.records
