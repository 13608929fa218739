"""Tries to change a training whose games are on a cluster: kills workers, removes a machine, adds one.

    scripts/python benchmarks/cluster_games_faults.py --kills 20 --output cluster_games_faults.md

Three Ray nodes on this machine play 24 games of Breakout, with sticky actions, prioritized replay and λ-returns.
Afterwards, the snapshot must be the same, byte for byte, and the CSV file the same, times aside, as after the same
training in one process. So must those of the training on the cluster that nothing befell.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # PYTHONSAFEPATH leaves it out

import psutil

import report

MAIN = Path(__file__).resolve().parents[1] / "src" / "main.py"
OPTIONS = ["breakout", "--num_envs", "24", "--repeat_action_probability", "0.25", "--prioritized_replay", "true"]
OPTIONS += ["--return_lambda", "0.9", "--replay_size", "4800", "--train_frequency", "480", "--train_repeat", "4"]
OPTIONS += ["--random_steps", "2400", "--test_steps", "2400", "--epochs", "2", "--backend", "cpu"]
OPTIONS += ["--random_seed", "1", "--save_weights_prefix", "breakout", "--csv_file", "breakout.csv"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="workers to kill (default: 20)")
    parser.add_argument("--steps", type=int, default=48_000, help="training steps of each epoch (default: 48000)")
    parser.add_argument("--seed", type=int, default=1, help="of the faults (default: 1)")
    parser.add_argument("--output", help="Markdown file to write (default: the terminal)")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    os.environ.update({"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"})
    from ray.cluster_utils import Cluster  # reads these variables

    options = [*OPTIONS, "--train_steps", str(arguments.steps)]
    with tempfile.TemporaryDirectory() as name:
        here, quiet, faults = Path(name, "here"), Path(name, "quiet"), Path(name, "faults")
        for path in (here, quiet, faults):
            path.mkdir()
        train(options, here).wait()
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        try:
            nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
            options += ["--cluster", cluster.address]
            train(options, quiet).wait()
            rows = befall(train(options, faults), cluster, nodes, arguments.kills)
        finally:
            cluster.shutdown()
        log = (faults / "log").read_text()
        seconds = sorted(float(text) for text in re.findall(r"Restored .* in ([\d.]+) s", log))
        expected = outcome(here)
        verdicts = [f"Three nodes, no fault: {'equal' if outcome(quiet) == expected else 'DIFFERENT'}."]
        verdicts += [f"Three nodes, with these faults: {'equal' if outcome(faults) == expected else 'DIFFERENT'}."]
        times = (
            f"Seconds until the games were where they were: median {seconds[len(seconds) // 2]}, most {seconds[-1]}."
        )
        report.write("\n\n".join([*verdicts, times, report.table(("Fault", "Times"), rows)]), arguments.output)
        print(log[-6000:], file=sys.stderr)


def train(options: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start a training. Its log is in the folder. Without a cluster its games are in its process."""
    one = {"OMP_NUM_THREADS": "1", "SIMPLE_DQN_CORES": "1"}
    with (folder / "log").open("wb") as log:
        return subprocess.Popen([sys.executable, str(MAIN), *options], cwd=folder, env=os.environ | one, stderr=log)


def befall(run: subprocess.Popen[bytes], cluster: Any, nodes: list[Any], kills: int) -> list[tuple[str, str]]:
    """Let the faults happen. Return how many there were of each kind."""
    killed, removed, added = 0, 0, 0
    while run.poll() is None:
        time.sleep(random.uniform(1, 5))
        workers = [process for process in psutil.process_iter(["name"]) if process.info["name"].startswith("ray::Game")]
        if not workers:
            continue
        if killed == kills // 3 and not removed:
            cluster.remove_node(nodes.pop(), allow_graceful=False)
            removed = 1
        elif killed == 2 * kills // 3 and not added:
            cluster.add_node(num_cpus=1)
            added = 1
        elif killed < kills:
            random.choice(workers).kill()
            killed += 1
        print(f"{killed} workers killed, {removed} machines removed, {added} added", flush=True)
    assert run.returncode == 0, run.returncode
    return [
        ("worker killed (SIGKILL)", str(killed)),
        ("machine removed", str(removed)),
        ("machine added", str(added)),
    ]


def outcome(folder: Path) -> tuple[list[bytes], list[list[str]]]:
    """The snapshots of a run, and its statistics without times."""
    rows = report.rows_without_times(folder / "breakout.csv")
    return [(folder / f"breakout_{epoch}.pkl").read_bytes() for epoch in (1, 2)], rows


if __name__ == "__main__":
    main()
