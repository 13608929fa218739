"""How long a frame of a game takes to draw, at several sizes of the window.

scripts/python benchmarks/drawing.py [--frames 300] [--game breakout]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import numpy as np
import pygame

from simple_dqn.environment import EnvironmentOptions
from simple_dqn.games.game import make_environment
from simple_dqn.watching.display import Decision, QScale, Scene
from simple_dqn.watching.insight import overlaid
from simple_dqn.watching.painter import Painter
from simple_dqn.watching.watcher import Watcher

SIZES = ((1280, 800), (1920, 1080), (3840, 2160))


class Frames(Watcher):
    """Keeps the pictures of all frames."""

    def __init__(self) -> None:
        self.pictures: list[Any] = []

    def on_frame(self, environment: Any) -> None:
        self.pictures.append(environment.picture())


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=300, help="frames to draw (default: 300)")
    parser.add_argument("--game", default="breakout", help="name of the game (default: breakout)")
    args = parser.parse_args()
    frames = Frames()
    environment = make_environment(EnvironmentOptions(game=args.game), 1, [frames])
    environment.mode = "test"
    environment.restart()
    rng = np.random.default_rng(1)
    while len(frames.pictures) < args.frames:
        environment.act(int(rng.integers(environment.num_actions)))
        if environment.is_terminal():
            environment.restart()
    pygame.display.init()
    print(f"{'window':>10}  {'game':>8}  {'with v':>8}   ms per frame, on one core, without the display's own")
    for size in SIZES:
        times = [time_of(size, frames.pictures[: args.frames], environment, lecture) for lecture in (False, True)]
        print(f"{size[0]}x{size[1]:<5} {times[0]:8.2f}  {times[1]:8.2f}")


def time_of(size: tuple[int, int], pictures: list[Any], environment: Any, lecture: bool) -> float:
    """Milliseconds per picture. In lecture mode the decision and the overlay change with every fourth."""
    painter = Painter(pygame.Surface(size))
    rng = np.random.default_rng(1)
    began = time.process_time()
    decision, heat = None, rng.random((84, 84))
    for i, picture in enumerate(pictures):
        if lecture and i % 4 == 0:
            q_values = rng.random(environment.num_actions)
            state = rng.integers(256, size=(4, 84, 84), dtype=np.uint8)
            values = tuple(rng.random(150).tolist())
            decision = Decision(environment.action_names, q_values, i // 4 % 3, state, QScale(0, 1), values)
            heat = rng.random((84, 84)) ** 8
        shown = overlaid(picture, heat) if lecture else picture
        painter.draw(Scene(shown, environment.pixel_width, ("agent", f"score {i}", "q: quit"), (), None, decision))
    return 1000 * (time.process_time() - began) / len(pictures)


if __name__ == "__main__":
    main()
