"""A computation recorded for the GPU, with a stand-in for CUDA: it runs where there is no GPU, too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from simple_dqn.deepqnetwork import Batch
from simple_dqn.learning.cuda import Graph


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
