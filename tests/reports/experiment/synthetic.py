"""Experiments that nobody ran: plan, CSV files and records as the engine writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fakes import HEADER

VARIANTS = {"plain": [], "double": ["--double_dqn", "true"]}
OPTIONS: dict[str, Any] = {
    "epochs": 5,
    "frame_skip": 4,
    "environment": "ale",
    "double_dqn": False,
    "learning_rate": 0.0001,
}


def write_csv(path: Path, scores: Sequence[float], steps: int = 1000) -> Path:
    """A training with a test of each of these scores; training scores are one lower."""
    rows = [f"0,random,500,3,{min(scores)},-21,-19,1,0,500,0.001,0,0,1.5,1.5,333.3"]
    for epoch, score in enumerate(scores, 1):
        counts, time = f"{epoch * steps},1500,0.2,0.01,{250 * epoch}", 360.0 * epoch
        rows.append(f"{epoch},train,{steps},5,{score - 1},{score - 5},{score},0.9,{counts},{time - 60},300,333.3")
        rows.append(f"{epoch},test,800,4,{score},{score - 4},{score + 3},0.05,{counts},{time},60,400")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


def scores_of(game: str, variant: str, seed: int, epochs: int) -> list[float]:
    """Learning curves that rise with noise; double learns more."""
    rng = np.random.default_rng([len(game), len(variant), seed])
    low, high = (-20.0, 12.0) if game == "pong" else (1.0, 150.0)
    high += (high - low) * (0.2 if variant == "double" else 0.0)
    x = np.linspace(0, 1, epochs) if epochs > 1 else np.ones(1)
    noise = rng.normal(0, 0.06, epochs).cumsum() * 0.5 + rng.normal(0, 0.05, epochs) + rng.normal(0, 0.08)
    return [float(round(y, 3)) for y in low + (high - low) * (x**0.7 + noise * x)]


def write_experiment(
    folder: Path,
    games: Sequence[str] = ("pong", "breakout"),
    variants: Mapping[str, Sequence[str]] = VARIANTS,
    seeds: Sequence[int] = (1, 2, 3),
    epochs: int = 5,
    steps: int = 1000,
) -> Path:
    """A complete experiment `night`; returns results/night."""
    results = folder / "results" / "night"
    results.mkdir(parents=True)
    command = ["night", "--games", *games, "--learning_rate", "0.0001"]
    plan = dict(name="night", command=command, options=["--learning_rate", "0.0001"], version=1)
    (results / "experiment.json").write_text(
        json.dumps(plan | dict(games=list(games), variants=dict(variants), seeds=list(seeds)))
    )
    for game in games:
        for variant, words in variants.items():
            for seed in seeds:
                name = f"{game.removeprefix('ALE/')}_{variant}_{seed}"
                write_csv(results / f"{name}.csv", scores_of(game, variant, seed, epochs), steps)
                more = {word[2:]: True for word in words if word.startswith("--")}
                write_record(results / f"{name}.json", seed, **OPTIONS | dict(epochs=epochs, game=game) | more)
    return results


def write_record(path: Path, seed: int, state: str = "complete", error: str = "", **options: Any) -> None:
    legs = [dict(machine="node1, Xeon", began="2026-11-27T01:00:00", hours=0.5, commit="abc1234")]
    legs.append(dict(machine="node2, EPYC", began="2026-11-27T02:00:00", hours=0.25, commit="abc1234"))
    record = dict(options=options | {"random_seed": seed}, seed=seed, legs=legs, state=state)
    path.write_text(json.dumps(record | (dict(error=error) if error else {})))
