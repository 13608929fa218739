"""Compares this program's speed in training with other programs', each in an environment of its own.

    scripts/python benchmarks/peers.py --output peers.md

Installs what is missing (a few GB in --cache), then runs the programs in turn, A B C A B C …, as often as --runs says.
What the work is and how to read the table is told in benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import venv
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))  # PYTHONSAFEPATH leaves it out

import report

HERE = Path(__file__).resolve().parent
ALE = f"ale-py=={version('ale-py')}"
TORCH = "torch==" + version("torch").split("+")[0]  # one emulator and one torch for all


class Peer(NamedTuple):
    """A program to compare with. Its driver, peers/NAME_dqn.py, runs in an environment with `packages`."""

    name: str
    title: str
    packages: tuple[str, ...]  # for pip
    differs: str  # in what its work is not this program's
    option: str = ""  # what tells where its source is, if no package index has it


WRAPPERS = (
    "The usual Atari wrappers in Python: RGB screens of single frames, the larger of the last two, resized by area. "
)

PEERS = (
    Peer(
        "stable_baselines3",
        "Stable-Baselines3",
        (TORCH, "stable-baselines3==2.9.2", ALE, "gymnasium==1.4.0", "opencv-python-headless<6"),
        WRAPPERS + "Presses FIRE at the start. Whole states in memory, twice (state and next state). Adam, Huber loss, "
        "gradients clipped by their norm.",
    ),
    Peer(
        "tianshou",
        "Tianshou",
        # Its screens are declared as np.integer, which NumPy no longer takes for a type.
        (TORCH, "tianshou==2.0.1", ALE, "gymnasium==1.4.0", "opencv-python-headless<6", "numpy<2.3"),
        WRAPPERS + "Presses FIRE at the start. Screens stored once. Adam, squared loss. The online network sees the "
        "next states too, though double Q-learning is off. Batches are copied and searched for missing values.",
    ),
    Peer(
        "pfrl",
        "PFRL",
        # It asks for any gym but speaks the interface from before 0.26, and for packaging not at all.
        (TORCH, "pfrl==0.4.0", ALE, "gymnasium==1.4.0", "gym==0.25.2", "packaging", "opencv-python-headless<6"),
        WRAPPERS + "Frames shared between states, in lists of Python objects. Centered RMSProp, Huber loss.",
    ),
    Peer(
        "cleanrl",
        "CleanRL",
        # Its wrappers have other names in gymnasium 1.0.
        (TORCH, ALE, "gymnasium==0.29.1", "numpy<2.3", "opencv-python-headless<6", "tyro", "tensorboard"),
        WRAPPERS + "Presses FIRE at the start. Whole states in memory, once. Adam, squared loss; TensorBoard log. "
        "Fills its memory at exploration 0.05, not at random.",
        option="cleanrl",
    ),
    Peer(
        "dopamine",
        "Dopamine",
        # baselines: imported, not asked for, and only one file of it; jax: TensorFlow Probability fails on newer ones.
        ("dopamine-rl==4.1.2", ALE, "gymnasium==1.4.0", "gym==0.25.2", "jax<0.5"),
        "JAX, compiled; TensorFlow is there but idle. Single frames in grey, the larger of the last two, resized by "
        "area, in Python. No no-ops at the start. Whole states in memory, compressed. Adam, squared loss. The network "
        "runs for random actions too.",
    ),
)

FAST = "Eight games side by side, bfloat16, Adam; as many updates as the others make."
NO_DEPENDENCIES = {"dopamine": ("baselines==0.1.5",)}  # packages that ask for far more than is used of them
NOT_RUN = {"DQN Zoo": "not on the package index; it asks for JAX 0.3, Gym 0.19 and atari-py 0.2, not for ale-py"}


class Failure(Exception):
    """A program cannot be run; the text says why."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs of each program (default: 5)")
    parser.add_argument("--random_steps", type=int, default=4000, help="random steps first (default: 4000)")
    parser.add_argument("--warm_up", type=int, default=400, help="steps with learning, not timed (default: 400)")
    parser.add_argument("--steps", type=int, default=2000, help="steps timed (default: 2000)")
    parser.add_argument("--cache", type=Path, default=HERE.parent / ".venv" / "peers", help="folder for environments")
    parser.add_argument("--output", help="Markdown file to write (default: the terminal)")
    parser.add_argument("--only", nargs="+", choices=[peer.name for peer in PEERS], help="no others but these")
    parser.add_argument("--cleanrl", metavar="FILE", help="CleanRL's dqn_atari.py, in a checkout of CleanRL")
    arguments = parser.parse_args()
    if arguments.steps % 4 or arguments.warm_up % 4:
        parser.error("--steps and --warm_up must be multiples of 4, the steps per update")
    work = [f"--{name}={getattr(arguments, name)}" for name in ("random_steps", "warm_up", "steps")]

    machine = report.machine()
    own = [sys.executable, str(HERE / "own.py"), *work]
    commands = {"Simple DQN": own, "Simple DQN, @presets/fast": [*own, "@presets/fast"]}
    missing = dict(NOT_RUN)
    for peer in PEERS:
        if arguments.only and peer.name not in arguments.only:
            continue
        source = getattr(arguments, peer.option) if peer.option else None
        if peer.option and not source:
            missing[peer.title] = f"not on the package index; --{peer.option} FILE tells where it is"
            continue
        try:
            python = install(peer, arguments.cache.resolve())
        except Failure as failure:
            missing[peer.title] = f"could not be installed: {failure}"
            continue
        driver = [str(python), str(HERE / "peers" / f"{peer.name}_dqn.py"), *work]
        commands[peer.title] = [*driver, f"--source={source}"] if source else driver

    results = measure(commands, arguments.runs, arguments.steps // 4, missing)
    report.write(text(machine, results, missing, arguments), arguments.output)


def install(peer: Peer, cache: Path) -> Path:
    """Makes the peer's environment, unless it is there with just these packages; returns its Python."""
    folder = cache / peer.name
    python, stamp = folder / "bin" / "python", folder / "installed.txt"
    plain = NO_DEPENDENCIES.get(peer.name, ())
    want = "\n".join((*peer.packages, *plain))
    if stamp.exists() and stamp.read_text() == want:
        return python
    say(f"installing {peer.title}")
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    if TORCH in peer.packages:
        pip(python, TORCH)  # on its own first, so that no other package chooses which torch it is
    pip(python, *peer.packages)
    if plain:
        pip(python, "--no-deps", *plain)
    stamp.write_text(want)
    return python


def pip(python: Path, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    run(command, "ERROR")


def measure(
    commands: dict[str, list[str]], runs: int, updates: int, missing: dict[str, str]
) -> dict[str, list[dict[str, Any]]]:
    """The results of every command, run in turn; what fails is not run again and goes to `missing`."""
    results: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for number in range(1, runs + 1):
        for title, command in commands.items():
            if title in missing:
                continue
            try:
                result = json.loads(run(command, "").splitlines()[-1])
            except Failure as failure:
                missing[title] = f"failed: {failure}"
                results.pop(title, None)
                continue
            if abs(result["updates"] - updates) > 1:
                missing[title] = f"did other work: {result['updates']} updates where {updates} were asked for"
                results.pop(title, None)
                continue
            results[title].append(result)
            say(f"run {number}/{runs}: {title} {result['steps_per_second']:.0f} steps per second")
    return results


def run(command: list[str], marker: str) -> str:
    """What the command prints; where it fails, its last line of error output with `marker` is told."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if marker in line and line.strip()]
        raise Failure(re.sub(r"\s+", " ", lines[-1])[:300] if lines else f"exit status {done.returncode}")
    return done.stdout


def text(
    machine: str, results: dict[str, list[dict[str, Any]]], missing: dict[str, str], arguments: argparse.Namespace
) -> str:
    speeds = {title: [result["steps_per_second"] for result in own] for title, own in results.items()}
    base = statistics.median(speeds["Simple DQN"]) if "Simple DQN" in speeds else float("nan")
    rows = []
    for title, own in sorted(speeds.items(), key=lambda item: -statistics.median(item[1])):
        median = statistics.median(own)
        spread = f"{min(own):.0f} to {max(own):.0f}"
        rows.append((title, f"{median:.0f}", spread, f"{median / base:.2f}", f"{base / median:.2f}"))
    head = ("Program", "Steps per second", "Lowest to highest", "Relative to Simple DQN", "Simple DQN is × as fast")
    versions = [
        f"- {title}: {', '.join(f'{name} {number}' for name, number in own[0]['versions'].items())}"
        for title, own in results.items()
    ]
    differs = [f"- {peer.title}: {peer.differs}" for peer in PEERS if peer.title in results]
    differs.insert(0, "- Simple DQN, @presets/fast: " + FAST)
    parts = [
        f"Training on Breakout, on the CPU; medians of {arguments.runs} interleaved runs of {arguments.steps} steps.",
        machine,
        report.table(head, rows),
        "Versions:",
        "\n".join(versions),
        "How the other programs' work differs from this one's:",
        "\n".join(differs),
    ]
    if missing:
        parts += ["Not measured:", "\n".join(f"- {title}: {why}" for title, why in missing.items())]
    return "\n\n".join(parts)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
