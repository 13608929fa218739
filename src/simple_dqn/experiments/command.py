"""The command experiment.sh: reads and checks the plan, then trains its runs until all are complete."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import FrameType
from typing import Any

from simple_dqn import options
from simple_dqn.cluster.engine import Engine
from simple_dqn.command_line import MainOptions, require_sense
from simple_dqn.environment import EnvironmentOptions
from simple_dqn.errors import OptionError, SimpleDQNError, StatisticsError, exit_status
from simple_dqn.experiments.plan import Plan, PlannedRun, read_plan
from simple_dqn.experiments.status import read_facts
from simple_dqn.experiments.table import Lines, LiveTable
from simple_dqn.games.game import make_environment
from simple_dqn.games.roms import stem_of
from simple_dqn.interrupts import Interrupted, handled_by
from simple_dqn.options import Options, as_word, option
from simple_dqn.reports.experiment.report import ReportOptions, write_report
from simple_dqn.reports.progress import in_terminal
from simple_dqn.saving.files import Lock, require_writable
from simple_dqn.saving.settings import Groups, recorded_options
from simple_dqn.wording import count

logger = logging.getLogger(__name__)

_REFRESH = 2.0  # seconds
_NAME = r"\w[\w.-]*"
_SET_HERE = {  # options of train.sh that an experiment sets, and what to type instead
    "game": "use --games",
    "random_seed": "use --seeds",
    "save_weights_prefix": "the files are named after the run",
    "csv_file": "the files are named after the run",
    "resume": "the same command continues all runs",
    "checkpoint": "every run needs its checkpoints",
    "load_weights": "every run starts from nothing",
    "start_epoch": "every run starts from nothing",
    "play_games": "an experiment trains",
    "cluster": "use --address",
    "cluster_cores": "use --cores",
    "display_screen": "watch the snapshots with ./play.sh",
    "record_screen_path": "film the snapshots with ./record.sh",
    "record_sound_filename": "film the snapshots with ./record.sh",
    "video_file": "film the snapshots with ./record.sh",
    "visualization_file": "use ./nvis.sh on the snapshots",
    "scores_path": "use ./test.sh on the snapshots",
}


@dataclass(frozen=True)
class ExperimentOptions(Options):
    title = "Experiment"
    name: str | None = option(None, "name of the experiment, and of its folders in snapshots and results",
        positional=True, kept="never")  # fmt: skip
    games: tuple[str, ...] = option((), "games, as for train.sh", kept="never")
    variant: tuple[str, ...] = option(
        (), "a name and the options of this variant, in quotes; may be given several times", default_text="plain",
        kept="never",
    )  # fmt: skip
    seeds: int = option(5, "runs of each game and variant, with --random_seed 1, 2, …", at_least=1, at_most=10_000,
        kept="never")  # fmt: skip
    cores: int = option(1, "processor cores of each run", at_least=1, at_most=10_000, kept="never")
    gpus: float | None = option(
        None, "GPUs of each run; several runs may share one", at_least=0, at_most=64,
        default_text="0.25 if there are GPUs, else 0", kept="never",
    )  # fmt: skip
    address: str | None = option(
        None, "Ray cluster to use: auto, or HOST:PORT", default_text="Ray starts on this machine", kept="never"
    )
    folder: str = option(
        ".", "folder in which all machines see snapshots and results", default_text="the current folder", kept="never"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gpus and self.gpus > 1 and self.gpus != int(self.gpus):
            raise OptionError(f"--gpus {self.gpus:g}: use a whole number, or a part of one GPU such as 0.5")


def main(groups: Groups, argv: Sequence[str] | None = None) -> int:
    """Run the program. Return its exit status: 0, 2 for an error that the user can fix, 128 + n after signal n.

    Args:
        groups: the dataclasses of all options of train.sh.
        argv: the words of the command line.
    """
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return exit_status(lambda: run(groups, words), "use fewer runs at a time: larger --cores")
    except Interrupted as interrupted:
        return 128 + int(interrupted.args[0])


def run(groups: Groups, argv: Sequence[str]) -> None:
    """Train all runs that are not complete.

    Raises:
        SimpleDQNError: the user must change the command, or runs have failed.
        Interrupted: a signal ended the program. All runs are saved.
    """
    given = options.parse(
        [ExperimentOptions, *groups],
        argv,
        usage="experiment.sh NAME --games GAME... [--variant 'VARIANT options']... [options of train.sh]",
        description="Trains every game in every variant with several seeds, on this machine or on a cluster.",
        epilog="example:\n  ./experiment.sh double --games pong breakout --seeds 3 --variant plain "
        "--variant 'double --double_dqn true' @presets/online\n",
    )
    o = options.build(ExperimentOptions, given)
    folder = _folder(o)
    plan, new = _plan(groups, o, given, argv, folder)
    os.chdir(folder)  # because the runs see paths from there too
    runs = runs_of(plan, groups)
    if new:
        _require_playable(groups, runs)
    with contextlib.ExitStack() as stack:
        lock = Lock(
            str(folder / "results" / plan.name / "experiment"),
            f"results/{plan.name}, the files of an experiment",
            "give this one another name",
        )
        stack.callback(lock.close)
        left = [run for run in runs if read_facts(folder / run.result("json")).get("state") != "complete"]
        if not left:
            logger.info("%s is complete: %s", plan.name, count(len(runs), "run"))
            return
        engine = Engine(o.address, folder, o.cores, o.gpus, max(run.memory for run in left))
        stack.callback(engine.close)
        if new:
            plan.write(folder)
        for run in left:
            engine.start(run)
        failed = _watch(engine, runs, left, folder, argv)
    for name, error in failed.items():
        logger.info("%s failed: %s (its log: %s)", name, error, f"results/{plan.name}/{name}.log")
    try:
        write_report(ReportOptions(name=plan.name), groups)
    except StatisticsError as error:  # such as no rows, because all runs failed at once
        logger.info("No report: %s", error)
    if failed:
        raise SimpleDQNError(f"{len(failed)} of {count(len(runs), 'run')} failed. The same command tries them again")
    logger.info("%s is complete: %s", plan.name, count(len(runs), "run"))


def _watch(
    engine: Engine, runs: Sequence[PlannedRun], left: Sequence[PlannedRun], folder: Path, argv: Sequence[str]
) -> dict[str, str]:
    """Wait until all runs that were `left` have ended. Return the errors of those that failed.

    Raises:
        Interrupted: after a signal, when all runs are saved.
    """
    view = LiveTable(runs, folder) if in_terminal() else Lines(runs, folder)
    failed: dict[str, str] = {}
    waiting = len(left)
    with _first_signal() as received:
        with contextlib.closing(view):
            while waiting and not received:
                for run, error in engine.ended(_REFRESH):
                    waiting -= 1
                    if error:
                        failed[run.name] = error
                        view.fail(run, error)
                view.show()
        if received:
            logger.info("Interrupted: every run saves and ends (Ctrl-C again ends at once)")
            engine.stop()
            logger.info("Continue with: ./experiment.sh %s", shlex.join(argv))
            raise Interrupted(received[0])
    return failed


@contextlib.contextmanager
def _first_signal() -> Iterator[list[int]]:
    """Yield a list that receives the first signal. A second one ends the program. Under nohup SIGHUP stays ignored.

    The handler raises nothing, because Ray's compiled code turns an exception into a crash.
    """
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for other in handled:
            signal.signal(other, signal.SIG_DFL)

    with handled_by(receive) as handled:
        yield received


def _folder(o: ExperimentOptions) -> Path:
    folder = Path(o.folder).resolve()
    if not folder.is_dir():
        raise OptionError(f"--folder {o.folder}: there is no such folder")
    if not o.name:
        raise OptionError("no name given: ./experiment.sh NAME --games pong breakout")
    if not re.fullmatch(_NAME, o.name):
        raise OptionError(f"{o.name} is no name: use letters, digits, _ and -")
    require_writable(folder / "results" / o.name / "experiment.json")
    require_writable(folder / "snapshots" / o.name / "experiment")
    return folder


def _plan(
    groups: Groups, o: ExperimentOptions, given: Mapping[str, Any], argv: Sequence[str], folder: Path
) -> tuple[Plan, bool]:
    """Return the plan, and whether it is new.

    Raises:
        OptionError: it is not the plan of the experiment that has this name, or an option is wrong.
    """
    assert o.name
    common = {name: value for name, value in given.items() if name not in {f.name for f in fields(ExperimentOptions)}}
    planned = read_plan(o.name, folder)
    if planned and not common and not {"games", "variant", "seeds"} & given.keys():
        return planned, False
    if "game" in common:
        raise OptionError(f"unrecognized argument {common['game']!r}: games are given by --games")
    if not o.games:
        raise OptionError(f"no games given: ./experiment.sh {o.name} --games pong breakout")
    variants = _variants(groups, o.variant or ("plain",))
    games = list(dict.fromkeys(o.games))
    plan = Plan(o.name, list(argv), _words(common), games, variants, list(range(1, o.seeds + 1)))
    _require_allowed(common)
    if planned:
        plan.require_same(planned)
    return planned or plan, not planned


def _variants(groups: Groups, texts: Sequence[str]) -> dict[str, list[str]]:
    """Return the options of each variant, by its name."""
    variants: dict[str, list[str]] = {}
    for text in texts:
        try:
            name, *words = shlex.split(text) or [""]
        except ValueError as error:
            raise OptionError(f"--variant {text!r}: {str(error).lower()}: give a name and options") from None
        if not re.fullmatch(_NAME, name):
            raise OptionError(f"--variant {text!r}: begin with a name of letters, digits, _ and -")
        if name in variants:
            raise OptionError(f"two variants are called {name}: give one another name")
        try:
            values = options.parse(groups, words, usage="", description="", epilog="")
            _require_allowed(values)
        except OptionError as error:
            raise OptionError(f"--variant {name}: {error}") from None
        variants[name] = _words(values)
    return variants


def _require_allowed(values: Mapping[str, Any]) -> None:
    for name in values:
        if name in _SET_HERE:
            raise OptionError(f"--{name} is not for experiments: {_SET_HERE[name]}")


def _words(values: Mapping[str, Any]) -> list[str]:
    """Return options as words, in one order, so that equal plans have equal words."""
    return [word for name in sorted(values) for word in (f"--{name}", as_word(values[name]))]


def runs_of(plan: Plan, groups: Groups) -> list[PlannedRun]:
    """Return the runs of a plan, with all their options checked.

    Raises:
        OptionError: options contradict each other, or two games have the same name.
    """
    runs: dict[str, PlannedRun] = {}
    for game, variant, seed in plan.combinations():
        words = [*plan.options, *plan.variants[variant], "--random_seed", str(seed)]
        values = options.parse(groups, words, usage="", description="", epilog="") | {"game": game}
        name = f"{stem_of(game, values.get('environment', 'ale'))}_{variant}_{seed}"
        try:
            recorded = recorded_options(groups, values)
            main_options = options.build(MainOptions, values)
            run = PlannedRun(plan.name, name, game, tuple(words), seed, recorded, main_options.epochs)
            require_sense(main_options, values | {"csv_file": run.result("csv")}, None)
        except SimpleDQNError as error:
            raise OptionError(f"variant {variant}: {error}") from None
        if name in runs:
            raise OptionError(f"{runs[name].game} and {game} have the same name: leave one out")
        runs[name] = run
    return list(runs.values())


def _require_playable(groups: Groups, runs: Sequence[PlannedRun]) -> None:
    """Make each game once.

    Raises:
        GameError: there is no such game, or it cannot be played.
    """
    for environment in dict.fromkeys(options.build(EnvironmentOptions, run.options) for run in runs):
        make_environment(environment, seed=0).close()
