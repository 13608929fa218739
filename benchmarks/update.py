"""Shows where the time of one update goes, against the time of its matrix products alone.

    scripts/python benchmarks/update.py --output update.md

An update learns from 32 states of 4 x 84 x 84 with the network of Mnih et al. 2015. Each part is timed by itself; "the
rest" is what the whole takes beyond their sum: memory that one part pushed out of the caches and another has to fetch
again, and Python. The limit is the time of the products that convolutions and fully connected layers come to, as one
torch.mm each on matrices that lie ready.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))  # PYTHONSAFEPATH leaves it out

import own  # noqa: F401 - it finds simple_dqn
import report
from simple_dqn.deepqnetwork import BackendOptions, DeepQNetwork, DeepQNetworkOptions
from simple_dqn.replay_memory import Minibatch

BATCH, ACTIONS, SHAPE = 32, 4, (4, 84, 84)
CONFIGURATIONS = {  # datatype and optimizer
    "float32, RMSProp": ("float32", "rmsprop"),
    "bfloat16, Adam": ("bfloat16", "adam"),
}


def make_batch(rng: np.random.Generator) -> Minibatch:
    screens = rng.integers(0, 256, (BATCH, SHAPE[0] + 1, *SHAPE[1:]), np.uint8)
    actions, ones = rng.integers(0, ACTIONS, BATCH).astype(np.uint8), np.ones(BATCH, np.float32)
    terminals = rng.random(BATCH) < 0.01
    steps = np.ones(BATCH, np.int64)
    return Minibatch(screens[:, :-1], actions, ones[:, None], screens[:, 1:], terminals, np.arange(BATCH), ones, steps)


def parts_of(network: DeepQNetwork, batch: Minibatch) -> dict[str, Callable[[], Any]]:
    """The update and its parts; the states are interleaved within each pass forward."""
    here = network._to_batch(batch)
    trace: list[Any] = []
    deltas = torch.randn_like(network._online.forward(here.prestates, trace)) * 1e-6

    def forward() -> None:
        network._online.forward(here.prestates, [])

    return {
        "whole update": lambda: network.train(batch),
        "target network, forward": lambda: network.targets(here),
        "network, forward": forward,
        "network, backward": lambda: network._online.backward(trace, deltas),
        "optimizer": lambda: network._optimizer.step(network._online.gradient, 1 / BATCH),
        "(of these: states interleaved, twice)": lambda: [
            network._online._channels_last(here.prestates, traced) for traced in (False, True)
        ],
    }


def products(dtype: torch.dtype) -> Iterator[tuple[Callable[[], Any], float]]:
    """Each matrix product of an update, and its billions of multiplications and additions."""
    # rows (batch and place), inputs to each output, outputs
    layers = [(BATCH * 400, 256, 32), (BATCH * 81, 512, 64), (BATCH * 49, 576, 64), (BATCH, 3136, 512)]
    layers.append((BATCH, 512, ACTIONS))
    for i, (m, k, n) in enumerate(layers):
        sizes = [(m, k, n), (m, k, n), (n, m, k)] + [(m, n, k)] * (i > 0)  # forward twice, of weights, of inputs
        for rows, inner, columns in sizes:
            a, b = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
            out = torch.empty(rows, columns, dtype=dtype)
            yield (lambda a=a, b=b, out=out: torch.mm(a, b, out=out)), 2e-9 * rows * inner * columns  # type: ignore[misc]


def milliseconds(run: Callable[[], Any], times: int) -> float:
    for _ in range(3):
        run()
    start = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - start) / times * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="measurements of each figure (default: 7)")
    parser.add_argument("--times", type=int, default=40, help="repetitions in a measurement (default: 40)")
    parser.add_argument("--output", help="Markdown file to write (default: the terminal)")
    arguments = parser.parse_args()
    logging.getLogger().setLevel(logging.WARNING)
    machine, rng = report.machine(), np.random.default_rng(1)
    measured: dict[tuple[str, str], list[float]] = defaultdict(list)
    runs, limits = {}, {}
    for name, (datatype, optimizer) in CONFIGURATIONS.items():
        backend = BackendOptions(backend="cpu", datatype=datatype)
        network = DeepQNetwork(ACTIONS, SHAPE, DeepQNetworkOptions(optimizer=optimizer), backend, seed=1)
        runs[name] = parts_of(network, make_batch(rng))
        limits[name] = list(products(getattr(torch, datatype)))
    for _ in range(arguments.runs):
        for name in CONFIGURATIONS:
            for part, run in runs[name].items():
                measured[name, part].append(milliseconds(run, arguments.times))
            limit = sum(milliseconds(run, arguments.times) for run, _ in limits[name])
            measured[name, "its matrix products alone"].append(limit)
    report.write("\n\n".join([title(arguments), machine, table(measured, limits)]), arguments.output)


def title(arguments: argparse.Namespace) -> str:
    return f"Milliseconds of an update of {BATCH} states, medians of {arguments.runs} interleaved runs."


def table(measured: dict[tuple[str, str], list[float]], limits: dict[str, list[tuple[Any, float]]]) -> str:
    figures = {key: median(values) for key, values in measured.items()}
    names = list(CONFIGURATIONS)
    parts = list(dict.fromkeys(part for _, part in figures))
    rows = [[part, *(f"{figures[name, part]:.2f}" for name in names)] for part in parts]
    counted = [part for part in parts[1:] if not part.startswith(("(", "its"))]
    rest = [figures[name, parts[0]] - sum(figures[name, part] for part in counted) for name in names]
    rows.insert(1 + len(counted), ["the rest", *(f"{ms:.2f}" for ms in rest)])
    last = parts[-1]
    rows.append(["whole update ÷ products", *(f"{figures[n, parts[0]] / figures[n, last]:.2f}" for n in names)])
    speeds = [sum(flop for _, flop in limits[name]) / figures[name, last] * 1000 for name in names]
    rows.append(["products, GFLOP/s", *(f"{speed:.0f}" for speed in speeds)])
    return report.table(("", *names), rows)


if __name__ == "__main__":
    main()
