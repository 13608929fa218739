"""The plan of an experiment: its games, variants and seeds, and the files of its runs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from simple_dqn.errors import OptionError, OutputError, reason
from simple_dqn.saving.files import replace_file

_VERSION = 1  # of experiment.json
_WITHOUT_REPLAY = 3 * 2**28  # bytes of a training


@dataclass(frozen=True)
class PlannedRun:
    """One training of an experiment. Its paths are relative to the folder that all machines see.

    Attributes:
        experiment: the name of the experiment.
        name: GAME_VARIANT_SEED, with which the names of its files begin.
        game: as on the command line of train.sh.
        words: its other options, with the seed.
        seed: of its random numbers.
        options: the value of each option that a snapshot records.
        epochs: number of its last epoch.
    """

    experiment: str
    name: str
    game: str
    words: tuple[str, ...]
    seed: int
    options: Mapping[str, Any]
    epochs: int

    @property
    def memory(self) -> int:
        """Bytes that it may need: its replay memory, and what a training takes without one."""
        o = self.options
        transitions = min(o["replay_size"], o["random_steps"] + self.epochs * o["train_steps"])
        return int(transitions * o["screen_height"] * o["screen_width"] + _WITHOUT_REPLAY)

    @property
    def prefix(self) -> str:
        """What the names of its snapshots begin with."""
        return f"snapshots/{self.experiment}/{self.name}"

    def result(self, kind: str) -> str:
        """Return the path of its file of this kind in results: csv, log or json."""
        return f"results/{self.experiment}/{self.name}.{kind}"


@dataclass(frozen=True)
class Plan:
    """What an experiment is. The same plan gives the same runs.

    Attributes:
        name: of the experiment.
        command: the words of experiment.sh that made it.
        options: the words common to all runs.
        games: as on the command line of train.sh.
        variants: the words of each, by name.
        seeds: of the runs of each game and variant.
    """

    name: str
    command: Sequence[str]
    options: Sequence[str]
    games: Sequence[str]
    variants: Mapping[str, Sequence[str]]
    seeds: Sequence[int]

    def path(self, folder: Path) -> Path:
        """The file that keeps the plan."""
        return folder / "results" / self.name / "experiment.json"

    def combinations(self) -> Iterator[tuple[str, str, int]]:
        """Yield game, variant and seed of each run: first all games and variants with the first seed."""
        yield from ((game, variant, seed) for seed in self.seeds for game in self.games for variant in self.variants)

    def write(self, folder: Path) -> None:
        """Write the plan.

        Raises:
            OutputError: it cannot be written.
        """
        replace_file(self.path(folder), (json.dumps(asdict(self) | {"version": _VERSION}, indent=1) + "\n").encode())

    def require_same(self, planned: Plan) -> None:
        """Check that the experiment of this name, `planned` earlier, is the same.

        Raises:
            OptionError: it is not. The message says what differs.
        """
        differ = [
            f"{what}: {before or 'none'} then, {now or 'none'} now"
            for what, before, now in zip(_FACTS, planned._texts(), self._texts(), strict=True)
            if before != now
        ]
        if differ:
            raise OptionError(
                f"{self.name} is another experiment ({'; '.join(differ)}). Choose another name, or continue it with "
                f"./experiment.sh {self.name}"
            )

    def _texts(self) -> tuple[str, ...]:
        variants = " and ".join(shlex.quote(shlex.join([name, *words])) for name, words in self.variants.items())
        return " ".join(self.games), variants, " ".join(map(str, self.seeds)), shlex.join(self.options)


_FACTS = ("games", "variants", "seeds", "options")


def read_plan(name: str, folder: Path) -> Plan | None:
    """Return the plan of an experiment; None if there is none.

    Raises:
        OutputError: its file is damaged, or folders of this name hold other files.
    """
    path = folder / "results" / name / "experiment.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts.pop("version") != _VERSION:
            raise ValueError("it was written by another version of this program")
        return Plan(**facts)
    except FileNotFoundError:
        for other in (path.parent, folder / "snapshots" / name):
            if any(file for file in other.glob("*") if not file.name.startswith("experiment.")):
                raise OutputError(f"{other} holds files of no experiment: choose another name") from None
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise OutputError(f"cannot read {path}: {why}. Choose another name, or move that folder away") from None
