"""What the GPU needs beyond the code for the CPU: screens in its memory, and updates recorded as one CUDA graph."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

logger = logging.getLogger(__name__)


_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


def count_gpus(device_id: int) -> tuple[int, str]:
    """Return the number of GPUs that PyTorch can use, and if it is 0 the reason in one line; "" if there is no GPU.

    Args:
        device_id: the GPU that has to compute something for a test.
    """
    with warnings.catch_warnings(record=True) as caught:  # PyTorch warns if the driver is too old
        warnings.simplefilter("always")
        try:
            number = torch.cuda.device_count() if torch.cuda.is_available() else 0
            if device_id < number:
                torch.ones(1, device=torch.device("cuda", device_id)).add_(1)  # fails if PyTorch is too new for the GPU
        except RuntimeError as error:
            return 0, first_line(error)
    if number:
        return number, ""
    if caught:
        return 0, first_line(caught[0].message)
    if torch.backends.mps.is_available():
        return 0, "Apple's GPU is not supported, because it has no float64, which Adam counts in"
    if not torch.version.cuda and _NVIDIA_DRIVER.exists():
        return 0, f"PyTorch {torch.__version__} was built without CUDA. Install the build with CUDA"
    return 0, ""


def first_line(error: object) -> str:
    """Return the first line of an error or warning of PyTorch, without the place in its source."""
    return str(error).split("\n")[0].split(" (Triggered internally")[0].rstrip(".")


def usable_datatype(datatype: str) -> str:
    """Return `datatype`, or float32 if the current GPU does not have it."""
    if datatype == "tf32":
        supported = torch.cuda.is_tf32_supported()
    else:
        supported = datatype != "bfloat16" or torch.cuda.is_bf16_supported(False)
    if supported:
        return datatype
    logger.info("%s has no %s: computing in float32", torch.cuda.get_device_name(), datatype)
    return "float32"


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """Return `array` as a tensor on `device`.

    The copy to a GPU is only queued. It comes from pinned memory, because from other memory PyTorch waits until the GPU
    has finished all its work.
    """
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


class DeviceScreens:
    """Screens in the memory of a device: assigned like arrays, returned as tensors.

    Single screens are collected and copied together before the next read, because each copy takes some microseconds.

    Args:
        shape: (transitions, height, width).
        device: in whose memory they are.
    """

    most_collected = 256

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self.shape = shape
        self._tensor = torch.empty(shape, dtype=torch.uint8, device=device)
        self._collected: dict[int, NDArray[np.uint8]] = {}  # by index

    def __setitem__(self, index: Any, screens: NDArray[np.uint8]) -> None:
        if isinstance(index, int):
            self._collected[index] = screens.copy()
            if len(self._collected) == self.most_collected:
                self._copy_collected()
            return
        self._copy_collected()
        self._copy(index, screens)

    def __getitem__(self, indexes: NDArray[np.int64]) -> Tensor:
        """The screens at `indexes`, of any shape, as a tensor of shape (*indexes.shape, height, width)."""
        self._copy_collected()
        return self._tensor[to_device(indexes, self._tensor.device)]

    def _copy_collected(self) -> None:
        if self._collected:
            indexes, screens = np.array([*self._collected]), np.stack([*self._collected.values()])
            self._collected = {}
            self._copy(indexes, screens)

    def _copy(self, indexes: NDArray[np.int64], screens: NDArray[np.uint8]) -> None:
        device = self._tensor.device
        self._tensor.index_copy_(0, to_device(indexes, device), to_device(screens, device))


class Later:
    """An array that the GPU may still be computing. `np.asarray` waits for it."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        array: NDArray[Any] = self._tensor.cpu().numpy()
        return array if dtype is None else array.astype(dtype)


class Graph:
    """A computation recorded as one CUDA graph, because launching each kernel takes longer than running it.

    The first three calls just compute, because libraries choose their kernels then. If recording fails, every call just
    computes.
    """

    def __init__(self, compute: Callable[..., tuple[Tensor, Tensor]]) -> None:
        self._compute = compute
        self._calls = 0
        self._stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graph: Any = torch.cuda.CUDAGraph()

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        self._calls += 1
        if self._calls <= 3:
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                results = self._compute(*inputs)
            torch.cuda.current_stream().wait_stream(self._stream)
            return results
        if self._calls == 4:
            self._record(inputs)
        if not self._graph:
            return self._compute(*inputs)
        for recorded, tensor in zip(self._inputs, inputs, strict=True):
            recorded.copy_(tensor)
        self._graph.replay()
        cost, errors = self._results
        return cost.clone(), errors.clone()

    def _record(self, inputs: tuple[Tensor, ...]) -> None:
        stream = torch.cuda.current_stream()
        try:
            self._inputs = [tensor.clone() for tensor in inputs]
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._results = self._compute(*self._inputs)
        except RuntimeError as error:
            torch.cuda.set_stream(stream)  # because PyTorch does not if recording fails
            cause = first_line(error.__context__ or error)
            logger.info("Updates cannot be recorded as a CUDA graph, so they are slower: %s", cause)
            self._graph = None
