"""What the GPU needs beyond the code for the CPU: screens in its memory, and updates recorded as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class DeviceScreens:
    """Screens in the memory of a device: assigned like arrays, returned as tensors.

    Args:
        shape: (transitions, height, width).
        device: in whose memory they are.
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
    """An array that the GPU may still be computing. `np.asarray` waits for it."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        array: NDArray[Any] = self._tensor.cpu().numpy()
        return array if dtype is None else array.astype(dtype)


class Graph:
    """A computation recorded as one CUDA graph, because launching each kernel takes longer than running it.

    The first three calls just compute, because libraries choose their kernels then.
    """

    def __init__(self, compute: Callable[..., tuple[Tensor, Tensor]]) -> None:
        self._compute = compute
        self._calls = 0
        self._stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graph = torch.cuda.CUDAGraph()

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        self._calls += 1
        if self._calls <= 3:
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                results = self._compute(*inputs)
            torch.cuda.current_stream().wait_stream(self._stream)
            return results
        if self._calls == 4:
            self._inputs = [tensor.clone() for tensor in inputs]
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._results = self._compute(*self._inputs)
        for recorded, tensor in zip(self._inputs, inputs, strict=True):
            recorded.copy_(tensor)
        self._graph.replay()
        cost, errors = self._results
        return cost.clone(), errors.clone()
