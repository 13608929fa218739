"""Runs on Ray, on this machine or on a cluster. Ray says where a run goes, and starts it again where it is lost."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from simple_dqn.cluster.connection import SOURCE, connect, require_program
from simple_dqn.errors import OptionError, OutputError, reason
from simple_dqn.experiments.plan import PlannedRun
from simple_dqn.wording import last_line

_GPU_SHARE = 0.25  # of a run, if the cluster has GPUs


class Engine:
    """Starts runs, and tells which have ended.

    Args:
        address: of a Ray cluster: auto or HOST:PORT. None: Ray starts here, on loopback only.
        folder: where all machines see the files.
        cores: of a run.
        gpus: of a run; None: a quarter, if there are any.
        memory: bytes of the largest run.

    Raises:
        OptionError: Ray is missing or cannot start, or the cluster does not fit.
    """

    def __init__(self, address: str | None, folder: Path, cores: int, gpus: float | None, memory: int) -> None:
        self._ray = connect(address)
        self._leg = self._ray.remote(_task())  # one function, because Ray queues calls of one in their order
        self._folder, self._cores = folder, cores
        self._runs: dict[Any, PlannedRun] = {}  # by the reference of their task
        try:
            nodes = [node for node in self._ray.nodes() if node["Alive"]]
            if gpus is None:
                gpus = _GPU_SHARE if any(node["Resources"].get("GPU") for node in nodes) else 0
            fitting = _fitting(nodes, cores, gpus, memory)
            self._gpus = gpus
            self._require_same_files(fitting)
        except BaseException:
            self.close()
            raise

    def start(self, run: PlannedRun) -> None:
        """Start a run as soon as there is room for it."""
        task = self._leg.options(
            num_cpus=self._cores,
            num_gpus=self._gpus,
            memory=run.memory,  # because it grows for hours: Ray cannot see how much a run will need
            max_retries=-1,  # because each attempt continues from a checkpoint
            scheduling_strategy="SPREAD",
            name=run.name,
        )
        self._runs[task.remote(SOURCE, run, str(self._folder), self._cores)] = run

    def ended(self, seconds: float) -> Iterator[tuple[PlannedRun, str]]:
        """Wait for at most this time. Yield the runs that have ended, and "" or why they failed."""
        done, _ = self._ray.wait(list(self._runs), num_returns=len(self._runs), timeout=seconds)
        for task in done:
            yield self._runs.pop(task), self._error_of(task)

    def stop(self) -> None:
        """Let every run save and end. Wait for it."""
        for task in self._runs:
            self._ray.cancel(task)
        while self._runs:
            list(self.ended(1))

    def close(self) -> None:
        """End Ray, or leave the cluster."""
        self._ray.shutdown()

    def _error_of(self, task: Any) -> str:
        try:
            return str(self._ray.get(task))
        except self._ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            return last_line(str(cause), type(cause).__name__)

    def _require_same_files(self, nodes: Sequence[dict[str, Any]]) -> None:
        """Check that every machine sees the folder and the program.

        Raises:
            OptionError: one does not. The message names it.
        """
        mark = self._folder / f".{uuid.uuid4().hex}.tmp"
        try:
            mark.touch()
            require_program(self._ray, nodes, str(mark))
        except OSError as error:
            raise OutputError(f"cannot write to {self._folder}: {reason(error)}") from None
        finally:
            mark.unlink(missing_ok=True)


def _fitting(nodes: Sequence[dict[str, Any]], cores: int, gpus: float, memory: int) -> list[dict[str, Any]]:
    """Return the machines that have enough cores, GPUs and bytes of memory for a run.

    Raises:
        OptionError: there are none.
    """
    amounts = [(node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0)) for node in nodes]
    found = [node for node, (c, g) in zip(nodes, amounts, strict=True) if c >= cores and g >= gpus]
    if not found:
        most_cores, most_gpus = max(c for c, _ in amounts), max(g for _, g in amounts)
        if cores > most_cores:
            raise OptionError(f"--cores {cores}: the largest machine has {most_cores:g}. Use a smaller --cores")
        raise OptionError(f"--gpus {gpus:g}: no machine has as many with --cores {cores} (at most {most_gpus:g})")
    most_memory = max(node["Resources"].get("memory", memory) for node in found)
    if memory > most_memory:
        raise OptionError(
            f"a run may need {memory / 2**30:.1f} GiB of memory, and the largest machine has {most_memory / 2**30:.1f} "
            "GiB free: use a smaller --replay_size"
        )
    return found


def _task() -> Callable[[str, PlannedRun, str, int], str]:
    """Return a function that Ray pickles by value, because the worker may not find this module."""

    def leg(source: str, run: Any, folder: str, cores: int) -> str:
        import sys
        from pathlib import Path

        import ray

        sys.path[:0] = [] if source in sys.path else [source]
        from simple_dqn.experiments.leg import Leg

        devices = ",".join(map(str, ray.get_gpu_ids()))
        return Leg(run, Path(folder), cores, {"CUDA_VISIBLE_DEVICES": devices}).train()

    return leg
