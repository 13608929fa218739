"""Measures everything about this program that needs a GPU, in one command of under nine minutes, and reports it.

    python3 benchmarks/gpu.py --output results/gpu.md

It needs PyTorch with CUDA. Other packages that are missing come from the wheels in the folder --wheels, without a
network. Each part runs in a process of its own with a time limit. If one fails, the report says why and has the others.
The training continues where it stopped if the command is given again with the same --work. --backend cpu measures the
CPU, to try the command without a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT / "src"), str(ROOT)]  # PYTHONSAFEPATH leaves out the first

# Each part's share of --seconds. The training gets what is left.
SHARES = {"machine": 0.06, "correctness": 0.14, "updates": 0.12, "speed": 0.36, "peers": 0.10}
PARTS = (*SHARES, "training")
PACKAGES = {  # that the program imports, and how the package index calls them
    "numpy": "numpy", "psutil": "psutil", "tqdm": "tqdm", "zstandard": "zstandard", "ale_py": "ale-py",
    "cv2": "opencv-python-headless", "gymnasium": "gymnasium", "cloudpickle": "cloudpickle",
    "farama_notifications": "farama-notifications", "typing_extensions": "typing-extensions", "filelock": "filelock",
}  # fmt: skip
SHAPE, ACTIONS = (4, 84, 84), 4
GRACE = 3.0  # seconds beyond its time that a part has to end
UPDATES = 6  # compared with float64; after many, rounding alone takes two correct programs apart
OPTIONS = {  # of the program, for each of the configurations whose speed is measured
    "default": [],
    "@presets/fast": [f"@{ROOT / 'presets' / 'fast'}"],
    "@presets/online": [f"@{ROOT / 'presets' / 'online'}"],
}
GAMES = (1, 8, 64, 256)
NEON = ROOT.parent / "shared" / "reference" / "neon"


# The parts. Each prints Markdown, line by line, so that a part that is cut short leaves what it has.


def machine(arguments: argparse.Namespace) -> None:
    import torch

    print(f"- Python {platform.python_version()}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    with contextlib.suppress(ImportError):
        from simple_dqn.machine import cpu_name

        print(f"- CPU: {cpu_name()}, {len(os.sched_getaffinity(0))} logical cores")
    for module, package in PACKAGES.items():
        if not find_spec(module):
            print(f"- missing: {package}")
    if torch.cuda.is_available():
        facts = torch.cuda.get_device_properties(0)
        print(
            f"- GPU: {facts.name}, compute capability {facts.major}.{facts.minor}, {facts.total_memory / 2**30:.0f} GiB"
        )
        has = torch.cuda.is_tf32_supported(), torch.cuda.is_bf16_supported(False)
        print(f"- TF32: {has[0]}, bfloat16: {has[1]}, GPUs: {torch.cuda.device_count()}")
    for line in nvidia_smi("driver_version,clocks.max.sm,power.limit"):
        print(f"- driver, clock and power limit: {line}")


def correctness(arguments: argparse.Namespace) -> None:
    """Compare updates with those in float64 on the CPU: same weights, same minibatches."""
    import numpy as np
    import torch

    from simple_dqn.learning import cuda
    from update import make_batch

    rng = np.random.default_rng(1)
    batches = [make_batch(rng) for _ in range(4)]
    logged = LogLines()
    print("| optimizer | datatype | how | largest difference of Q | of the loss |\n|:--|:--|:--|--:|--:|", flush=True)
    for optimizer in ("rmsprop", "adam", "adadelta"):
        exact = results_of(make_network("cpu", "float64", optimizer), batches)
        for datatype in datatypes(arguments.backend):
            found = {}
            for how in ways(arguments.backend, datatype):
                network = make_network(arguments.backend, datatype, optimizer, how)
                q, costs = found[how] = results_of(network, batches)
                off = [
                    np.abs(mine - its).max() / np.abs(its).max() for mine, its in zip((q, costs), exact, strict=True)
                ]
                print(f"| {optimizer} | {datatype} | {how} | {off[0]:.1e} | {off[1]:.1e} |", flush=True)
            if len(found) > 1:
                same = all(map(np.array_equal, found["graph"], found["eager"]))
                print(
                    f"| {optimizer} | {datatype} | graph = eager, bit for bit | {'yes' if same else 'NO'} | |",
                    flush=True,
                )
    text = f"After {UPDATES} updates. Differences are from float64 on the CPU, divided by the largest Q-value or loss."
    print(f"\n{text}\n", flush=True)
    against_neon(arguments.backend)
    if arguments.backend == "gpu":
        network = make_network("gpu", "float32", "rmsprop")
        learn = network._learn_from

        def look_and_learn(*fields: torch.Tensor) -> Any:
            assert fields[2].sum().item() != 0.5  # which a recording cannot do
            return learn(*fields)

        network._update = cuda.Graph(look_and_learn)
        q, _ = results_of(network, batches)
        same = np.array_equal(q, results_of(make_network("gpu", "float32", "rmsprop", "eager"), batches)[0])
        print(f"- An update that cannot be recorded: {logged.with_word('graph')}; same results: {same}")
        screens_on_the_gpu()


def against_neon(backend: str) -> None:
    """Compare with the outputs of real Neon, if they are here: shared/reference/NEON.md describes them."""
    import numpy as np

    from simple_dqn.replay_memory import Minibatch

    if not NEON.is_dir():
        print("- Against Neon: not measured, because its fixtures are not in ../shared/reference/neon")
        return
    for name in ("d84_rmsprop", "s42_rmsprop", "s42_adam", "s42_adadelta"):
        inputs, outputs = (np.load(NEON / f"{name}_{kind}.npz") for kind in ("inputs", "outputs"))
        fields = [inputs[key] for key in ("prestates", "actions", "rewards", "poststates", "terminals")]
        ones = np.ones(32, np.float32)
        batches = [
            Minibatch(
                pre, actions, rewards.astype(np.float32)[:, None], post, ends, np.arange(32), ones, ones.astype(int)
            )
            for pre, actions, rewards, post, ends in zip(*fields, strict=True)
        ]
        shape = batches[0].prestates.shape[1:]
        network = make_network(backend, "float32", name.split("_")[1], "graph", outputs["q_before"].shape[-1], shape)
        costs = []
        for step in range(20):
            if step in inputs["target_sync_before_step"].tolist():
                network.update_target_network()
            costs.append(float(network.train(batches[inputs["batch_order"][step]]).cost))
        q = np.array([network.predict(batch.prestates) for batch in batches])
        off = np.abs(q - outputs["q_after"]).max(), (np.abs(costs - outputs["costs"]) / outputs["costs"]).max()
        print(f"- Neon, {name}: largest difference of Q {off[0]:.1e}, of the loss {off[1]:.1e} (relative)", flush=True)


def screens_on_the_gpu() -> None:
    """Compare minibatches from screens on the GPU with those from screens in memory."""
    import numpy as np
    import torch

    from simple_dqn.learning.cuda import DeviceScreens
    from simple_dqn.replay_memory import ReplayMemory, ReplayMemoryOptions

    memories = [
        ReplayMemory(ReplayMemoryOptions(replay_size=2000), SHAPE[1:], 32, np.random.default_rng(1)) for _ in (0, 1)
    ]
    memories[1].screens = DeviceScreens(memories[1].screens.shape, torch.device("cuda", 0))
    rng = np.random.default_rng(2)
    same = True
    for n in range(5000):
        screen = rng.integers(0, 256, SHAPE[1:], np.uint8)
        for memory in memories:
            memory.add(n % 4, 0.0, screen, n % 100 == 99)
        if n > 100 and n % 7 == 0:
            one, other = (memory.minibatch() for memory in memories)
            same &= np.array_equal(one.prestates, other.prestates.cpu()) and np.array_equal(
                one.poststates, other.poststates.cpu()
            )
    print(f"- Screens on the GPU: same minibatches as from memory: {same}")


def updates(arguments: argparse.Namespace) -> None:
    """Time updates: what the host takes to start one, and what it takes in all."""
    import numpy as np
    import torch

    from update import make_batch

    batch = make_batch(np.random.default_rng(1))
    print("| datatype | optimizer | how | updates per second | µs of the host per update | GPU memory |")
    print("|:--|:--|:--|--:|--:|--:|", flush=True)
    for datatype in datatypes(arguments.backend):
        for optimizer in ("rmsprop", "adam"):
            for how in ways(arguments.backend, datatype):
                network = None  # frees its memory before that of the next one is measured
                if torch.cuda.is_available():
                    torch.cuda.reset_peak_memory_stats()
                network = make_network(arguments.backend, datatype, optimizer, how)
                times = []
                for _ in range(3):
                    wait_for_gpu()
                    start, count = time.perf_counter(), 0
                    while time.perf_counter() - start < 0.3:
                        network.train(batch)
                        count += 1
                    host = time.perf_counter() - start
                    wait_for_gpu()
                    times.append((count / (time.perf_counter() - start), 1e6 * host / count))
                speed, host = (median(column) for column in zip(*times, strict=True))
                memory = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0
                print(f"| {datatype} | {optimizer} | {how} | {speed:.0f} | {host:.0f} | {memory:.0f} MiB |", flush=True)
    print("\nIf the host is faster than the GPU, its queue fills up and both columns show the GPU's time.")


def speed(arguments: argparse.Namespace) -> None:
    """Train for a while with each configuration, each in a process of its own."""
    if not find_spec("ale_py"):
        print("ale-py is missing, so the games are made up and take no time.\n")
    print("The GPU learns while the program goes on, so its time for learning counts in the column of Q-values.\n")
    head = ("options", "games", "steps per second", "games and messages", "waiting for games", "Q-values", "learning")
    print("\n".join(table_head([*head, "the rest", "peak memory", "GPU: busy", "memory"])), flush=True)
    cases = [(name, games) for games in GAMES for name in OPTIONS]
    deadline = time.monotonic() + arguments.seconds
    for i, (name, games) in enumerate(cases):
        seconds = (deadline - time.monotonic()) / (len(cases) - i)
        load = GPULoad()
        more = f"--options={name}", f"--games={games}"
        line, why = run_part("one_speed", arguments, seconds - GRACE, *more)
        cells = line.strip() or f"not measured: {why}"
        print(f"| {name} | {games} | {cells} | {load.stop()} |", flush=True)


def one_speed(arguments: argparse.Namespace) -> None:
    """Print the cells of one configuration: its speed and how its time is spent."""
    import own

    began = time.monotonic()
    games = arguments.games
    if not find_spec("ale_py"):
        import main as program
        from overhead import InstantGames

        vars(program)["make_games"] = lambda spec, *_: InstantGames(spec.num_games)
    replay_size, words = 200_000, []
    if arguments.options == "@presets/online":  # 32 steps of each game and as many updates per step as in the preset
        train_frequency = max(512, 32 * games)
        replay_size = train_frequency * 9 // 8
        words = ["--train_frequency", str(train_frequency), "--train_repeat", str(train_frequency // 16)]
    words = ["breakout", "--backend", arguments.backend, *OPTIONS[arguments.options], *words, "--num_envs", str(games)]
    agent = own.make_agent([*words, "--replay_size", str(replay_size), "--exploration_rate_start", "0.1"])
    network: Any = agent.network
    network.hold_screens(agent.memory)
    clock = Clock(agent)
    round_of = max(agent.options.train_frequency, games)
    agent.random(max(500, 12 * games))
    for _ in range(1 if round_of > 100 else 6):  # libraries choose their kernels, and graphs are recorded
        agent.train(round_of)
    wait_for_gpu()
    left = max(1.0, arguments.seconds - 1 - (time.monotonic() - began))
    clock.times.clear()
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < left:
        agent.train(round_of)
        steps += round_of
    wait_for_gpu()
    elapsed = time.perf_counter() - start
    names = ("start", "finish", "predict", "_learn")
    shares = [clock.times[name] / elapsed for name in names]
    cells = [f"{steps / elapsed:.0f}", *(f"{share:.0%}" for share in shares), f"{1 - sum(shares):.0%}"]
    print(" | ".join([*cells, f"{peak_memory():.1f} GiB"]), flush=True)


def peers(arguments: argparse.Namespace) -> None:
    """Run CleanRL's scripts as they are and read the steps per second that they print."""
    if not arguments.cleanrl:
        print("Not measured: `--cleanrl FOLDER` must name a checkout of CleanRL.")
        return
    start = (  # with the names of games that ale-py no longer has by itself
        "import runpy, sys; from ale_py import registration; registration.register_v0_v4_envs(); "
        "sys.path.insert(0, sys.argv.pop(1)); del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    folder = Path(arguments.cleanrl).resolve()
    cuda = "--cuda" if arguments.backend == "gpu" else "--no-cuda"
    for script, game, *options in (
        ("dqn_atari.py", "BreakoutNoFrameskip-v4", "--learning-starts", "1000", "--buffer-size", "20000"),
        ("pqn_atari_envpool.py", "Breakout-v5"),
    ):
        words = [str(folder), str(folder / "cleanrl" / script), cuda, "--env-id", game, *options]
        command = [arguments.cleanrl_python, "-u", "-c", start, *words, "--total-timesteps", "10000000"]
        output, why = run(command, arguments.seconds / 2 - 1, arguments.work / "peers")
        speeds = [line.split()[-1] for line in output.splitlines() if line.startswith("SPS:")]
        text = f"{speeds[-1]} steps per second, by its own count from its start" if speeds else f"not measured: {why}"
        print(f"- CleanRL, {script}: {text}", flush=True)


def training(arguments: argparse.Namespace) -> None:
    """Train on Breakout with `@presets/online` until the time is up. Ctrl-C then saves everything."""
    folder = arguments.work.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    prefix, statistics = folder / "breakout", folder / "breakout.csv"
    words = [sys.executable, str(ROOT / "src" / "main.py")]
    if any(folder.glob("breakout_*.checkpoint")):
        words += ["--resume", str(prefix)]
    else:
        words += ["breakout", *OPTIONS["@presets/online"], "--csv_file", str(statistics), "--save_weights_prefix"]
        words += [str(prefix), "--random_seed", "1", "--train_steps", "250000", "--test_games", "20", "--epochs", "32"]
    load = GPULoad()
    saving = min(20.0, arguments.seconds / 4)
    output, why = run([*words, "--backend", arguments.backend], arguments.seconds - 1, folder, saving)
    lines = [
        line for line in output.splitlines() if any(word in line for word in ("Backend: ", " screens ", "error: "))
    ]
    print("\n".join(f"- {line}" for line in lines))
    print(f"- {why or 'it reached its last epoch'}; GPU: {load.stop()}\n")
    if statistics.exists():
        columns = (
            "epoch",
            "phase",
            "steps",
            "average_reward",
            "total_train_steps",
            "meancost",
            "total_time",
            "steps_per_second",
        )
        print("\n".join(table_head(columns)))
        with statistics.open() as file:
            for row in csv.DictReader(file):
                print(f"| {' | '.join(row[column][:9] for column in columns)} |")
    print(f"\nThe same command with `--work {arguments.work}` continues it.")


# Tools


def make_network(
    backend: str, datatype: str, optimizer: str, how: str = "graph", actions: int = ACTIONS, shape: Any = SHAPE
) -> Any:
    from simple_dqn.deepqnetwork import BackendOptions, DeepQNetwork, DeepQNetworkOptions

    options = DeepQNetworkOptions(optimizer=optimizer)
    network = DeepQNetwork(actions, shape, options, BackendOptions(backend=backend, datatype=datatype), seed=1)
    if how == "eager":
        network._update = network._learn_from
    return network


def results_of(network: Any, batches: Sequence[Any]) -> tuple[Any, Any]:
    """Return the losses of some updates, and the Q-values after them."""
    import numpy as np

    network.update_target_network()
    costs = [network.train(batches[step % len(batches)]).cost for step in range(UPDATES)]
    q = np.array([network.predict(batch.prestates) for batch in batches], np.float64)
    return q, np.array([float(cost) for cost in costs])


def datatypes(backend: str) -> tuple[str, ...]:
    return ("float32", "tf32", "bfloat16", "float16") if backend == "gpu" else ("float32", "bfloat16")


def ways(backend: str, datatype: str) -> tuple[str, ...]:
    return ("graph", "eager") if backend == "gpu" and datatype != "float16" else ("eager",)


def wait_for_gpu() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory() -> float:
    """Return the largest size of this process so far, in GiB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class Clock:
    """Adds up the seconds that parts of an agent take: those of its games, its network and its updates."""

    def __init__(self, agent: Any) -> None:
        self.times: dict[str, float] = defaultdict(float)
        for part, name in (
            (agent.games, "start"),
            (agent.games, "finish"),
            (agent.network, "predict"),
            (agent, "_learn"),
        ):
            setattr(part, name, self._timed(name, getattr(part, name)))

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*words: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*words)
            finally:
                self.times[name] += time.perf_counter() - start

        return timed


class LogLines:
    """Keeps what the program logs."""

    def __init__(self) -> None:
        import logging

        self._lines: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: self._lines.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger().addHandler(handler)
        logging.getLogger().setLevel(logging.INFO)

    def with_word(self, word: str) -> str:
        return next((f'"{line}"' for line in self._lines if word in line), "no line in the log")


class GPULoad:
    """Samples how busy the GPU is, and its memory, until `stop`, which returns the cells of the table."""

    def __init__(self) -> None:
        self._samples: list[list[float]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._over.wait(0.5):
            lines = list(nvidia_smi("utilization.gpu,memory.used"))
            if not lines:
                return
            with contextlib.suppress(ValueError):
                self._samples.append([float(word) for word in lines[0].split(",")])

    def stop(self) -> str:
        self._over.set()
        self._thread.join()
        if not self._samples:
            return "– | –"
        busy, memory = zip(*self._samples, strict=True)
        return f"{median(busy):.0f} % | {max(memory) / 1024:.1f} GiB"


def nvidia_smi(fields: str) -> Iterator[str]:
    """Yield a line for each GPU, if the command is there."""
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            yield from subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.splitlines()


def table_head(columns: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(columns)} |", f"|:--|{'--:|' * (len(columns) - 1)}"]


def run_part(part: str, arguments: argparse.Namespace, seconds: float, *more: str) -> tuple[str, str]:
    """Run a part in a process of its own. Return what it printed, and "" or why it ended early."""
    command = [sys.executable, str(Path(__file__).resolve()), f"--part={part}", f"--seconds={seconds:.1f}"]
    command += [f"--backend={arguments.backend}", f"--work={arguments.work}", f"--cleanrl={arguments.cleanrl or ''}"]
    command += [f"--cleanrl_python={arguments.cleanrl_python}"]
    return run([*command, *more], seconds + GRACE, new_group=not arguments.part)


def run(
    command: list[str],
    seconds: float,
    folder: Path | None = None,
    saving: float = 0.0,
    new_group: bool = False,
) -> tuple[str, str]:
    """Run a command in `folder` for at most so many seconds. Return its output, and "" or why it ended early.

    Args:
        command: what to run.
        seconds: after them it is killed.
        folder: where it runs.
        saving: so many seconds before the end it gets Ctrl-C. Its log is part of the output then.
        new_group: kill the processes that it has started, too.
    """
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=pipe, text=True, start_new_session=new_group)
    why = ""
    for limit, number in ((seconds - saving, signal.SIGINT if saving else signal.SIGKILL), (saving, signal.SIGKILL)):
        try:
            output, errors = process.communicate(timeout=max(1.0, limit))
            break
        except subprocess.TimeoutExpired:
            why = f"stopped after {seconds:.0f} s"
            process.send_signal(number)
            if new_group:
                os.killpg(process.pid, signal.SIGKILL)
    else:
        output, errors = process.communicate()
    if new_group:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it has left
    if process.returncode and not why:
        lines = [line for line in errors.splitlines() if line.strip()]
        why = (lines or [f"exit status {process.returncode}"])[-1][:300]
    return output + (errors if saving else ""), why


def install(wheels: Path, work: Path) -> str:
    """Unpack the wheels of missing packages where all parts find them. Return a line for the report."""
    missing = [package for module, package in PACKAGES.items() if not find_spec(module)]
    target = work.resolve() / "packages"
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(target), os.environ.get("PYTHONPATH"))))
    failed = []
    for package in missing:
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-index",
            "--no-deps",
            "--target",
            str(target),
        ]
        _, why = run([*command, "--find-links", str(wheels.resolve()), package], 60)
        failed += [f"{package} ({why})"] if why else []
    return f"Installed from wheels: {len(missing) - len(failed)}; failed: {', '.join(failed) or 'none'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("gpu", "cpu"), default="gpu", help="what computes (default: gpu)")
    parser.add_argument("--seconds", type=float, default=500, help="how long all may take (default: 500)")
    parser.add_argument("--work", type=Path, default=Path("gpu-work"), help="folder for what stays (default: gpu-work)")
    parser.add_argument("--wheels", type=Path, help="folder with wheels of packages that may be missing")
    parser.add_argument("--cleanrl", help="folder with a checkout of CleanRL")
    parser.add_argument("--cleanrl_python", default=sys.executable, help="interpreter for CleanRL (default: this one)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="no parts but these")
    parser.add_argument("--output", type=Path, help="file for the report, besides the terminal")
    parser.add_argument("--part", choices=(*PARTS, "one_speed"), help=argparse.SUPPRESS)
    parser.add_argument("--options", default="default", help=argparse.SUPPRESS)
    parser.add_argument("--games", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        globals()[arguments.part](arguments)
        return

    began = time.monotonic()
    text = f"# {'GPU' if arguments.backend == 'gpu' else 'CPU'} report, {time.strftime('%Y-%m-%d')}\n"
    if arguments.wheels:
        text += f"\n{install(arguments.wheels, arguments.work)}\n"
    print(text, flush=True)
    for part in arguments.only:
        left = arguments.seconds - (time.monotonic() - began)
        seconds = min(left, SHARES.get(part, 1.0) * arguments.seconds)
        start = time.monotonic()
        printed, why = run_part(part, arguments, seconds) if left > 5 else ("", "no time was left")
        section = f"\n## {part.capitalize()} ({time.monotonic() - start:.0f} s)\n\n{printed.rstrip()}\n"
        section += f"\nThis part ended early: {why}\n" if why else ""
        print(section, flush=True)
        text += section
        if arguments.output:
            arguments.output.write_text(text)


if __name__ == "__main__":
    main()
