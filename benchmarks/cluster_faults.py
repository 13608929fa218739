"""Tries to make an experiment lose something: kills its workers, removes a machine, kills the driver.

    scripts/python benchmarks/cluster_faults.py --kills 20 --output cluster_faults.md

Three Ray nodes on this machine train 2 games × 2 variants × 2 seeds. Afterwards, each snapshot must be the same, byte
for byte, and each CSV file the same, times aside, as after main.py alone.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # PYTHONSAFEPATH leaves it out

import psutil

import report

SOURCE = Path(__file__).resolve().parents[1] / "src"
GAMES = ("pong", "breakout")
VARIANTS = {"plain": [], "double": ["--double_dqn", "true"]}
SEEDS = (1, 2)
OPTIONS = ["--random_steps", "200", "--train_steps", "1000", "--test_steps", "100", "--epochs", "2"]
OPTIONS += ["--replay_size", "2000", "--backend", "cpu"]
EXPERIMENT = ["faults", "--games", *GAMES, "--seeds", str(len(SEEDS)), *OPTIONS]
EXPERIMENT += [word for name, words in VARIANTS.items() for word in ("--variant", " ".join([name, *words]))]
NAMES = [f"{game}_{variant}_{seed}" for game in GAMES for variant in VARIANTS for seed in SEEDS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="workers to kill (default: 20)")
    parser.add_argument("--seed", type=int, default=1, help="of the faults (default: 1)")
    parser.add_argument("--output", help="Markdown file to write (default: the terminal)")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    os.environ.update({"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"})
    os.environ.update({"RAY_kill_child_processes_on_worker_exit": "0"})  # as docs/experiments.md has it
    from ray.cluster_utils import Cluster  # reads these variables

    with tempfile.TemporaryDirectory() as name:
        straight, folder = Path(name, "straight"), Path(name, "faults")
        for path in (straight, folder):
            path.mkdir()
        for run in NAMES:
            train(run, straight)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        try:
            nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
            rows = befall(folder, cluster, nodes, arguments.kills)
        finally:
            cluster.shutdown()
        wrong = [run for run in NAMES if outcome(folder / "snapshots/faults", folder / "results/faults", run)
                 != outcome(straight / "snapshots", straight / "results", run)]  # fmt: skip
    text = f"Of {len(NAMES)} runs, these differ from those of main.py alone: {', '.join(wrong) or 'none'}."
    report.write("\n\n".join([text, report.table(("Fault", "Times"), rows)]), arguments.output)


def train(run: str, folder: Path) -> None:
    """Train without Ray, as train.sh does."""
    game, variant, seed = run.split("_")
    command = [sys.executable, str(SOURCE / "main.py"), game, *OPTIONS, *VARIANTS[variant], "--random_seed", seed]
    command += ["--save_weights_prefix", f"snapshots/{run}", "--csv_file", f"results/{run}.csv"]
    subprocess.run(command, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, capture_output=True)


def befall(folder: Path, cluster: object, nodes: list[object], kills: int) -> list[tuple[str, str]]:
    """Run the experiment until it is complete, with all faults. Return how many there were of each kind."""
    from ray.cluster_utils import Cluster

    assert isinstance(cluster, Cluster)
    killed = removed = drivers = 0
    driver = drive(folder, cluster.address)
    while driver.poll() != 0:
        time.sleep(random.uniform(2, 6))
        workers = [process for process in psutil.process_iter(["cmdline"]) if is_worker(process)]
        if driver.poll() == 0:
            break
        if driver.returncode is not None:
            assert drivers < 20, "the experiment does not end"
            driver, drivers = drive(folder, cluster.address), drivers + 1
        elif removed == 0 and killed >= kills // 3 and workers:
            cluster.remove_node(nodes.pop(), allow_graceful=False)
            removed = 1
        elif drivers == 0 and killed >= 2 * kills // 3 and workers:
            driver.kill()
            drivers = 1
            driver.wait()
            driver = drive(folder, cluster.address)
        elif killed < kills and workers:
            random.choice(workers).kill()
            killed += 1
        print(f"{killed} workers, {removed} machines, {drivers} drivers", flush=True)
    return [
        ("worker killed (SIGKILL)", str(killed)),
        ("machine removed", str(removed)),
        ("driver killed", str(drivers)),
    ]


def drive(folder: Path, address: str) -> subprocess.Popen[bytes]:
    """Start the driver."""
    command = [sys.executable, str(SOURCE / "experiment.py"), *EXPERIMENT, "--address", address]
    return subprocess.Popen(command, cwd=folder)


def is_worker(process: psutil.Process) -> bool:
    """Whether a process is a Ray worker that has a run."""
    words = process.info["cmdline"] or [""]
    return words[0].removeprefix("ray::").split("(")[0] in NAMES


def outcome(snapshots: Path, results: Path, run: str) -> tuple[list[bytes], list[list[str]]]:
    """The snapshots of a run, and its statistics without times."""
    try:
        rows = report.rows_without_times(results / f"{run}.csv")
        return [(snapshots / f"{run}_{epoch}.pkl").read_bytes() for epoch in (1, 2)], rows
    except OSError as error:
        return [str(error).encode()], []


if __name__ == "__main__":
    main()
