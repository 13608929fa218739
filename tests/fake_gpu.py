"""Stand-ins for a GPU, for machines without one: tensors without values, and a recorder of computations."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from simple_dqn import deepqnetwork
from simple_dqn.learning import library


class FakeGPU(TorchFunctionMode):
    """Within it, PyTorch computes shapes, types and devices but no values, as on a GPU.

    It raises if an operation mixes devices. PyTorch's build for the CPU has no brackets, `new_empty` and `copy_` for
    such tensors, so this class computes them. No build has autograd for them without a GPU: see `pretend_gpu`.

    Attributes:
        waits: names of the calls that would wait for the GPU, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self._tensors: Any = FakeTensorMode()

    def __enter__(self) -> FakeGPU:
        self._tensors.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._tensors.__exit__(*error)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        on_gpu = [isinstance(arg, Tensor) and arg.device.type == "cuda" for arg in args]
        if name in _VALUES and on_gpu[0]:
            self.waits.append(name)
            return _VALUES[name]
        if name == "numpy":
            assert not on_gpu[0], "PyTorch refuses this for a tensor on a GPU"
            return np.ones(args[0].shape, str(args[0].dtype).removeprefix("torch."))
        if name == "pin_memory":
            pinned = args[0].clone()
            pinned.is_pinned_here = True
            return pinned
        source = args[1] if name == "copy_" else args[0] if name in ("to", "cpu") else None
        if name == "copy_":
            result = torch.ops.aten.copy_(*args)
        elif name == "__getitem__":
            result = _getitem(*args)
        elif name == "new_empty":
            result = torch.ops.aten.new_empty(args[0], args[1:])
        else:
            result = func(*args, **kwargs)
        if source is not None and source.device != result.device:
            queued = kwargs.get("non_blocking") and hasattr(source, "is_pinned_here")
            if not queued:
                self.waits.append(name)
        return result


_VALUES: dict[str, Any] = {"__bool__": True, "__float__": 1.0, "__int__": 1, "item": 1.0}


def _getitem(tensor: Tensor, key: Any) -> Tensor:
    dim = 0
    for part in key if isinstance(key, tuple) else (key,):
        if part is None:
            tensor = torch.ops.aten.unsqueeze(tensor, dim)
        elif part is Ellipsis:  # all dimensions, because only None follows in our code
            dim = tensor.dim() - 1
        elif isinstance(part, slice):
            tensor = torch.ops.aten.slice(tensor, dim, part.start, part.stop)
        elif isinstance(part, int):
            tensor, dim = torch.ops.aten.select(tensor, dim, part), dim - 1
        else:
            tensor = torch.ops.aten.index(tensor, [part])
        dim += 1
    return tensor


def pretend_gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGPU:
    """A machine with a GPU that computes no values. It records no graph, and all gradients by autograd are zeros."""
    for module in (deepqnetwork, library):
        monkeypatch.setattr(module, "find_device", lambda *_, **__: torch.device("cuda", 0))
    describe_gpu(monkeypatch)
    monkeypatch.setattr("simple_dqn.learning.cuda.Graph", lambda compute: compute)
    monkeypatch.setattr(Tensor, "requires_grad_", lambda tensor: tensor)
    monkeypatch.setattr(torch.autograd, "grad", _zero_gradients)
    return FakeGPU()


def _zero_gradients(_: Tensor, inputs: Any, *__: Any, **___: Any) -> tuple[Tensor, ...]:
    return tuple(map(torch.zeros_like, (inputs,) if isinstance(inputs, Tensor) else inputs))


def describe_gpu(monkeypatch: pytest.MonkeyPatch, name: str = "A100", major: int = 8, free: int = 2**40) -> list[Any]:
    """Let PyTorch describe a GPU. The list that this returns receives the devices that are made the current one."""
    chosen: list[Any] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: name)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: major >= 8)
    monkeypatch.setattr(torch.cuda, "is_tf32_supported", lambda: major >= 8)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 2**41))
    return chosen


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A stand-in for a CUDA graph, with values. It records operations; a replay does them again on the same tensors.

    As in a CUDA graph, recording itself changes no tensor, whatever Python computed then stays as it was, and reading a
    value raises.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._operations: list[tuple[Any, Any, Any, Any]] = []
        self._before: list[tuple[Tensor, Tensor]] = []  # each tensor that an operation changed, and its values before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise torch.AcceleratorError(CAPTURE_FAILED)
        kwargs = kwargs or {}
        for i, argument in enumerate(func._schema.arguments):
            if argument.alias_info and argument.alias_info.is_write:
                changed = args[i] if i < len(args) else kwargs[argument.name]
                self._before.append((changed, changed.clone()))
        result = func(*args, **kwargs)
        self._operations.append((func, args, kwargs, result))
        return result

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for tensor, before in reversed(self._before):
            tensor.copy_(before)

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, recorded in self._operations:
            result = func(*args, **kwargs)
            pairs = zip(recorded, result, strict=True) if isinstance(result, tuple | list) else [(recorded, result)]
            for then, now in pairs:
                if isinstance(then, Tensor) and then is not now:
                    then.copy_(now)


CAPTURE_FAILED = (
    "CUDA error: operation not permitted when stream is capturing\n"
    "Search for `cudaErrorStreamCaptureUnsupported' in the list of errors.\nCompile with `TORCH_USE_CUDA_DSA`."
)


class OptimizersOfGPU(TorchFunctionMode):
    """Within it, tensors say that they are on a GPU, so that optimizers use the formulas for it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func == Tensor.is_cuda.__get__ or func(*args, **(kwargs or {}))  # type: ignore[attr-defined]


def let_graphs_record(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Let `Graph` record with a `Recorder`. Return what takes the place of `torch.cuda.set_stream`."""
    set_stream = Mock()

    monkeypatch.setattr(torch.cuda, "set_stream", set_stream)
    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, Mock())
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recorder)
    monkeypatch.setattr(torch.cuda, "graph", lambda recorder, stream: recorder)
    return set_stream
