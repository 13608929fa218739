"""What the GPU needs beyond the code for the CPU: screens that stay on it, and updates that it runs by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simple_dqn.deepqnetwork import Batch


class DeviceScreens:
    """Screens where the network is: assigned as to an array, and taken out as tensors.

    Args:
        shape: (transitions, height, width).
        device: where they are.
    """

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self.shape = shape
        self._tensor = torch.empty(shape, dtype=torch.uint8, device=device)

    def __setitem__(self, index: Any, screens: NDArray[np.uint8]) -> None:
        self._tensor[index] = torch.from_numpy(screens).to(self._tensor.device)

    def __getitem__(self, indexes: NDArray[np.int64]) -> Tensor:
        """The screens at `indexes`, of any shape, as a tensor of shape (*indexes.shape, height, width)."""
        return self._tensor[torch.from_numpy(indexes).to(self._tensor.device)]


class Later:
    """An array that the GPU may still be computing; to look at it is to wait for it."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        array: NDArray[Any] = self._tensor.cpu().numpy()
        return array if dtype is None else array.astype(dtype)


class Graph:
    """A computation recorded as one CUDA graph, which the GPU then runs without being told each kernel.

    The first few times it is just computed, as libraries choose their kernels then.
    """

    def __init__(self, compute: Callable[[Batch], tuple[Tensor, Tensor]]) -> None:
        self._compute = compute
        self._calls = 0
        self._stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graph = torch.cuda.CUDAGraph()

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        self._calls += 1
        if self._calls <= 3:
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                results = self._compute(batch)
            torch.cuda.current_stream().wait_stream(self._stream)
            return results
        if self._calls == 4:
            self._batch = Batch(*(tensor.clone() for tensor in batch))
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._results = self._compute(self._batch)
        for own, new in zip(self._batch, batch, strict=True):
            own.copy_(new)
        self._graph.replay()
        cost, errors = self._results
        return cost.clone(), errors.clone()
