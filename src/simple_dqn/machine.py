"""Processor cores and memory that this process may use, also in a container or a job of a cluster."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil


def num_cores(root: Path = Path("/")) -> int:
    """Return the number of cores that the process may run on, or the CPU quota of its control groups if less.

    A quota of 1.5 cores counts as 2, because one thread would leave a part of it unused. SIMPLE_DQN_CORES sets a lower
    limit. experiment.sh sets it, because several runs share the machine.

    Args:
        root: folder with proc/ and sys/.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = min(map(_quota, _control_groups("cpu", root)), default=math.inf)
    limit = os.environ.get("SIMPLE_DQN_CORES", "")
    return math.ceil(min(cores, quota, int(limit) if limit.isdigit() and int(limit) else math.inf))


def available_memory(root: Path = Path("/")) -> int:
    """Return the free bytes of the machine, or those below the limit of a control group if less.

    Args:
        root: as for `num_cores`.
    """
    free = min(map(_free, _control_groups("memory", root)), default=math.inf)
    return int(max(0, min(psutil.virtual_memory().available, free)))


def cpu_name() -> str:
    """Return the processor's name, or its architecture if the name is unknown."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]  # macOS
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return platform.processor() or platform.machine()


def _control_groups(controller: str, root: Path) -> Iterator[Path]:
    """Yield the folders of the process's control groups (versions 1 and 2) and of their parents, which also limit."""
    mounted = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mounts = [mounted, mounted / "unified"]
        elif controller in controllers.split(","):
            mounts = [mounted / controller]
        else:
            continue
        for mount in mounts:
            # Within a container the path may be that of the host, whose upper part is not mounted.
            parts = [part for part in path.split("/") if part not in ("", "..")]
            while parts and not mount.joinpath(*parts).is_dir():
                del parts[0]
            for depth in range(len(parts), -1, -1):
                yield mount.joinpath(*parts[:depth])


def _quota(folder: Path) -> float:
    """Return the number of cores that a control group may use; inf: no limit."""
    words = _words(folder / "cpu.max") or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
    try:
        quota, period = map(int, words)
    except ValueError:  # "max", or the group does not limit it
        return math.inf
    return quota / period if quota > 0 else math.inf


def _free(folder: Path) -> float:
    """Return the bytes that a control group may still use; inf: no limit.

    Cached files count as free, because the system drops them if memory is needed.
    """
    for limits, usage, prefix in (
        (("memory.max", "memory.high"), "memory.current", ""),
        (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_"),
    ):
        limit = min(_number(folder / name, math.inf) for name in limits)
        if limit < math.inf:
            words = _words(folder / "memory.stat")
            stat = dict(zip(words[::2], words[1::2], strict=False))
            cached = sum(int(stat.get(prefix + name, 0)) for name in ("active_file", "inactive_file"))
            return limit - _number(folder / usage, 0) + cached
    return math.inf


def _number(path: Path, default: float) -> float:
    """Return the number in a file, or `default` if there is no file, or no number ("max") in it."""
    words = _words(path)
    return int(words[0]) if words and words[0].isdigit() else default


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
