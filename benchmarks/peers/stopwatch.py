"""What the drivers in this folder share: the amount of work, the clock and the line of JSON. Standard library only.

A driver calls `step()` once for every step that its agent takes, and stops once that returns True.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from importlib.metadata import version

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the CPU is what is measured
os.environ["JAX_PLATFORMS"] = "cpu"

REPLAY_SIZE = 50_000  # never full in these runs; as large as every program's way of storing it allows
TRAIN_FREQUENCY = 4  # steps per update
BATCH_SIZE = 32
TARGET_STEPS = 10_000  # steps between syncs of the target network
EXPLORATION = 0.05


class Stopwatch:
    """Counts the agent's steps: random ones, then a warm-up with learning, then those that are timed.

    Args:
        updates: tells how many minibatches the agent has learned from so far.
    """

    def __init__(self, updates: Callable[[], int] = lambda: 0) -> None:
        parser = argparse.ArgumentParser()
        for name in ("random_steps", "warm_up", "steps"):
            parser.add_argument(f"--{name}", type=int, required=True)
        parser.add_argument("--source", help="file of a program that is not installed but read from there")
        arguments = parser.parse_args()
        self.source: str = arguments.source
        self.random_steps: int = arguments.random_steps
        self.timed_steps: int = arguments.steps
        self.start: int = arguments.random_steps + arguments.warm_up
        self.stop: int = self.start + self.timed_steps
        self.steps = 0
        self.updates = updates
        self._updates = 0
        self._seconds = 0.0

    def step(self) -> bool:
        """One more step is done; returns whether it was the last."""
        self.steps += 1
        if self.steps == self.start:
            self._updates = self.updates()
            self._seconds = time.perf_counter()
        elif self.steps == self.stop:
            self._seconds = time.perf_counter() - self._seconds
            self._updates = self.updates() - self._updates
        return self.steps >= self.stop

    def report(self, *packages: str) -> None:
        """Prints the result, with the versions of those packages."""
        if self.steps < self.stop:
            raise SystemExit(f"only {self.steps} of {self.stop} steps were taken")
        line = dict(
            steps_per_second=self.timed_steps / self._seconds,
            updates=self._updates,
            versions={package: version(package) for package in packages},
        )
        print(json.dumps(line))
