"""How many cores and how much memory there are, where control groups limit them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psutil
import pytest

from simple_dqn import deepqnetwork
from simple_dqn.deepqnetwork import BackendOptions, DeepQNetwork, DeepQNetworkOptions
from simple_dqn.machine import available_memory, num_cores

GIB = 2**30


@pytest.fixture(autouse=True)
def _host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 16 cores and 100 GiB of free memory."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    memory: Any = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory._replace(available=100 * GIB))


def tree(root: Path, groups: str, files: dict[str, str | int]) -> Path:
    """A file system in which the process is in these control groups."""
    for name, content in ({"proc/self/cgroup": groups} | {f"sys/fs/cgroup/{k}": v for k, v in files.items()}).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n" if content != "" else "")
    return root


V1 = "9:memory:/docker/ab12\n4:cpu,cpuacct:/docker/ab12\n0::/docker/ab12"


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("", {}, 16),
        ("0::/", {}, 16),
        ("0::/", {"cpu.max": "max 100000"}, 16),
        ("0::/", {"cpu.max": "400000 100000"}, 4),
        ("0::/", {"cpu.max": "150000 100000"}, 2),
        ("0::/", {"cpu.max": "10000 100000"}, 1),
        ("0::/", {"cpu.max": "3200000 100000"}, 16),
        ("0::/slurm/job_1/step_0", {"slurm/job_1/cpu.max": "200000 100000", "slurm/job_1/step_0/cpu.max": "max 1"}, 2),
        ("0::/a/b", {"cpu.max": "500000 100000", "a/cpu.max": "300000 100000", "a/b/cpu.max": "700000 100000"}, 3),
        ("0::/host/only/here", {"here/cpu.max": "300000 100000"}, 3),
        ("0::/../../x", {"cpu.max": "300000 100000"}, 3),
        (V1, {"cpu/cpu.cfs_quota_us": -1, "cpu/cpu.cfs_period_us": 100000}, 16),
        (V1, {"cpu/cpu.cfs_quota_us": 250000, "cpu/cpu.cfs_period_us": 100000}, 3),
        (V1, {"cpu/docker/ab12/cpu.cfs_quota_us": 50000, "cpu/docker/ab12/cpu.cfs_period_us": 50000}, 1),
        ("0::/x", {"unified/x/cpu.max": "300000 100000"}, 3),
    ],
)
def test_cores(groups: str, files: dict[str, str | int], cores: int, tmp_path: Path) -> None:
    assert num_cores(tree(tmp_path, groups, files)) == cores


V2 = {"memory.max": 10 * GIB, "memory.current": 9 * GIB, "memory.stat": "anon 5\nactive_file 7\ninactive_file 20"}
LIMIT, USAGE, STAT = "memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"
STAT_V1 = "active_file 1\ninactive_file 1\ntotal_active_file 5\ntotal_inactive_file 6"


@pytest.mark.parametrize(
    ("groups", "files", "free"),
    [
        ("", {}, 100 * GIB),
        ("0::/", {"memory.max": "max", "memory.current": 9 * GIB}, 100 * GIB),
        ("0::/", {"memory.max": 10 * GIB}, 10 * GIB),
        ("0::/", V2, GIB + 27),
        ("0::/", V2 | {"memory.max": 8 * GIB, "memory.stat": ""}, 0),
        ("0::/", V2 | {"memory.max": "max", "memory.high": 11 * GIB}, 2 * GIB + 27),
        ("0::/a/b", {f"a/{name}": content for name, content in V2.items()} | {"a/b/memory.max": 9 * GIB}, GIB + 27),
        (V1, {LIMIT: 2**63 - 4096, USAGE: GIB}, 100 * GIB),
        (V1, {LIMIT: 4 * GIB, USAGE: 3 * GIB, STAT: STAT_V1}, GIB + 11),
        (V1.replace("docker", "slurm/job"), {"memory/slurm/memory.limit_in_bytes": GIB}, GIB),
    ],
)
def test_memory(groups: str, files: dict[str, str | int], free: int, tmp_path: Path) -> None:
    (tmp_path / "sys/fs/cgroup/memory/slurm/job/ab12").mkdir(parents=True)
    assert available_memory(tree(tmp_path, groups, files)) == free


def test_here() -> None:
    assert 1 <= num_cores() <= 16
    assert 0 < available_memory() <= 100 * GIB


@pytest.mark.parametrize(("cores", "threads", "used"), [(16, None, 3), (2, None, 2), (16, 1, 1), (16, 8, 3)])
def test_the_network_computes_with_as_many_threads(
    cores: int, threads: int | None, used: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most as many as PyTorch has chosen, for example because of OMP_NUM_THREADS."""
    import torch

    monkeypatch.setattr(deepqnetwork, "num_cores", lambda: cores)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        DeepQNetwork(3, (1, 44, 44), DeepQNetworkOptions(), BackendOptions(backend="cpu"), 1, threads=threads)
        assert torch.get_num_threads() == used
    finally:
        torch.set_num_threads(before)
