"""The connection to Ray, on this machine or on a cluster."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Callable, Iterable
from typing import Any

from simple_dqn.errors import OptionError
from simple_dqn.interrupts import ENDING_SIGNALS
from simple_dqn.machine import num_cores
from simple_dqn.saving.files import ROOT

SOURCE = str(ROOT / "src")
_PATIENCE = 10.0  # seconds until a cluster must answer; Ray itself would try for minutes
_OBJECT_STORE = 80 * 2**20  # bytes; little more than the least, because hardly any object is large


def connect(address: str | None, option: str = "--address", installer: str = "./experiment.sh") -> Any:
    """Start Ray on loopback, or join the cluster at `address`. Return the module ray.

    Args:
        address: auto or HOST:PORT; None: Ray starts here.
        option: that has the address, for errors.
        installer: what to type if Ray is missing.

    Raises:
        OptionError: Ray is missing or cannot start, or there is no such cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # because Ray would report to its makers
    # Else Ray kills the trainings of a worker that ends, before they have saved. They end by themselves (tether.py).
    os.environ.setdefault("RAY_kill_child_processes_on_worker_exit", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray warns without it
    here: dict[str, Any] = {}
    if not address:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # or else Ray would listen on all interfaces on Linux
        here = dict(num_cpus=num_cores(), object_store_memory=_OBJECT_STORE, include_dashboard=False)
    else:
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")  # of 41 s each; Ray's 20 take a quarter of an hour
    try:
        import ray
    except ImportError as error:
        raise OptionError(f"Ray is missing ({error}): {installer} installs it") from None
    _require_answer(address, option)
    # Ray's processes inherit the blocked signals, which are for this process: it saves before it ends. SIGTERM is not
    # blocked, because Ray ends its processes with it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set(ENDING_SIGNALS) - {signal.SIGTERM})
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **here)
    except Exception as error:  # Ray raises RuntimeError, ConnectionError, ValueError, and Exception itself
        raise OptionError(why_not_connected(address, option, str(error))) from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return ray


def _require_answer(address: str | None, option: str) -> None:
    """Check that `address` accepts connections, if it is HOST:PORT.

    Raises:
        OptionError: it does not, or there is no such port.
    """
    host, _, port = (address or "").rpartition(":")
    if port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
        except (OSError, OverflowError) as error:
            raise OptionError(why_not_connected(address, option, str(error))) from None


def why_not_connected(address: str | None, option: str, error: str) -> str:
    """Return in one line why there is no connection, from Ray's error."""
    versions = re.findall(r"Ray: (\S+)\s+Python: (\S+)", error)
    if len(versions) == 2:
        theirs, ours = (f"Ray {ray} and Python {python}" for ray, python in versions)
        return f"{option} {address}: the cluster has {theirs}, this machine {ours}. Use the same on all machines"
    first = error.strip().partition("\n")[0]
    if address:
        return f"{option} {address}: there is no Ray cluster ({first})"
    return f"Ray cannot start on this machine: {first}"


def require_program(ray: Any, nodes: Iterable[dict[str, Any]], mark: str = SOURCE) -> None:
    """Check that each machine has the program and its packages, and sees the file `mark`.

    Raises:
        OptionError: one does not. The message names it.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    probe = ray.remote(_probe())
    tasks = [
        probe.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(mark, SOURCE)
        for node in nodes
    ]
    for task in tasks:
        try:
            error = ray.get(task)
        except ray.exceptions.TaskUnschedulableError:
            continue  # because the machine has just gone
        if error:
            raise OptionError(error)


def _probe() -> Callable[[str, str], str]:
    """Return a function that Ray pickles by value, because the worker may not find this module."""

    def probe(mark: str, source: str) -> str:
        import importlib.util
        import os
        import socket

        machine = socket.gethostname()
        if not os.path.exists(os.path.join(source, "main.py")):
            return f"machine {machine} does not see the program in {os.path.dirname(source)}: install it there too"
        if not os.path.exists(mark):
            return f"machine {machine} does not see {os.path.dirname(mark)}: use a --folder that all machines share"
        if not importlib.util.find_spec("torch"):
            return f"machine {machine} lacks the program's packages: start Ray there with the program's .venv/bin/ray"
        return ""

    return probe
