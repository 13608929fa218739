"""The report of an experiment: a program that writes report.html, report.png and report.md into its results."""

from __future__ import annotations

import logging
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from simple_dqn import options
from simple_dqn.errors import OptionError, exit_status
from simple_dqn.options import Options, as_word, option
from simple_dqn.reports import curves
from simple_dqn.reports.experiment import document, evaluation, figures
from simple_dqn.reports.experiment.document import Block, Code, Figures, Films, Heading, Items, Table, Text
from simple_dqn.reports.experiment.evaluation import Estimate
from simple_dqn.reports.experiment.figures import Curve, Panel
from simple_dqn.reports.experiment.films import film_of
from simple_dqn.reports.experiment.results import Experiment, RunResults, common, differing, read_experiment
from simple_dqn.reports.scores import mean_text
from simple_dqn.reports.table import Floats
from simple_dqn.saving.files import replace_file, require_writable
from simple_dqn.wording import count

logger = logging.getLogger(__name__)

_INTERVAL = (
    f"95 % bootstrap interval: seeds are drawn {evaluation.REPETITIONS:,} times, with replacement within each game, "
    "and the middle 95 % of the results lie in it"
)
_METRICS = {
    "IQM": evaluation.iqm,
    "Median": evaluation.median,
    "Mean": evaluation.mean,
    "Optimality gap": evaluation.optimality_gap,
}
_MANY_PAIRS = 15  # if there are more pairs of variants, each is compared with the first one only
_UNLIKELY = "the difference is unlikely to be chance. With few seeds the bars are too short."


@dataclass(frozen=True)
class ReportOptions(Options):
    title = "Report"
    name: str | None = option(None, "experiment whose results to report", positional=True)
    folder: str = option(".", "folder that contains results/, snapshots/ and videos/", default_text="the current one")
    score: str = option("final", "compare the last or the best test of each run", choices=("final", "best"))
    films: bool = option(True, "film a game of the best run of each game", optional_value=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name:
            raise OptionError("no experiment given: name one that has a folder in results/")


def main(argv: Sequence[str] | None = None, groups: Sequence[type[Options]] = ()) -> int:
    """Write the report; return the exit status: 0, 2 if the input is wrong, 130 after Ctrl-C.

    Args:
        argv: the words of the command line.
        groups: the dataclasses of all options of a training, for their defaults.
    """
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    words = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: run(words, groups), "use --films false")


def run(argv: Sequence[str], groups: Sequence[type[Options]]) -> None:
    """Write the report.

    Raises:
        SimpleDQNError: the input is wrong.
    """
    values = options.parse(
        [ReportOptions],
        argv,
        usage="report.sh NAME [options]",
        description="Reports an experiment, also while it runs: results/NAME/report.html, report.png and report.md.",
        epilog="examples:\n  ./report.sh night\n  ./report.sh night --films false --score best\n",
    )
    o = options.build(ReportOptions, values)
    write_report(o, groups)


def write_report(o: ReportOptions, groups: Sequence[type[Options]]) -> None:
    """Write report.html, report.png and report.md.

    Args:
        o: experiment and folder.
        groups: the dataclasses of all options of a training, for their defaults.

    Raises:
        StatisticsError: there is no such experiment, it has no rows yet, or a file is damaged.
        OutputError: a file could not be written.
    """
    assert o.name
    experiment = read_experiment(o.name, Path(o.folder))
    results = Path(o.folder, "results", o.name)
    paths = {kind: results / f"report.{kind}" for kind in ("html", "png", "md")}
    for path in paths.values():
        require_writable(path)
    title = f"Experiment {o.name}"
    blocks = report(experiment, o, {f.name: f.default for group in groups for f in fields(group)})
    panels = [panel for block in blocks if isinstance(block, Figures) for panel in block.panels]
    replace_file(paths["png"], figures.png(title, panels))
    replace_file(paths["md"], document.markdown(title, blocks, "report.png").encode())
    replace_file(paths["html"], document.html(title, blocks).encode())
    logger.info("The report is in %s, with .png and .md beside it", paths["html"])


def report(experiment: Experiment, o: ReportOptions, defaults: Mapping[str, Any]) -> list[Block]:
    """Return what the report contains."""
    return [
        *_overview(experiment, defaults),
        *_learning_curves(experiment),
        *_scores(experiment),
        *_all_games(experiment, o.score),
        *_improvements(experiment, o.score),
        *(_films(experiment, Path(o.folder)) if o.films else []),
        *_runs(experiment, defaults),
    ]


# What was run


def _overview(experiment: Experiment, defaults: Mapping[str, Any]) -> list[Block]:
    runs = experiment.runs
    counts = {state: [run.state for run in runs].count(state) for state in dict.fromkeys(run.state for run in runs)}
    seeds = len({run.seed for run in runs})
    size = f"{count(len(experiment.games), 'game')}, {count(len(experiment.variants), 'variant')}, "
    size += f"{count(seeds, 'seed')}: {count(len(runs), 'run')}, {sum(run.hours for run in runs):.1f} hours in total."
    states = ", ".join(
        f"{number} {'of unknown state' if state == 'unknown' else state}" for state, number in counts.items()
    )
    blocks: list[Block] = [Text(f"{size} Runs: {states}.")]
    missing = [f"{run.name}: {why}" for run in runs if (why := _missing(experiment, run))]
    if missing:
        text = "The experiment is unfinished. Scores of runs that are not complete are those so far, marked with *."
        blocks += [Text(text), Items(missing)]
    if experiment.command:
        blocks.append(Code("./experiment.sh " + shlex.join(experiment.command)))
    known = [differing(run.options, defaults) for run in runs if run.options]
    shared = common(known) if known else {}
    if shared:
        blocks.append(Text(f"All runs: {_words(shared)}"))
    rows = []
    for variant in experiment.variants:
        its = [differing(run.options, defaults) for run in runs if run.variant == variant and run.options]
        rest = {name: value for name, value in common(its).items() if name not in shared} if its else {}
        planned = shlex.join(experiment.words.get(variant, []))
        rows.append([variant, _words(rest) or planned or ("–" if known or planned else "unknown")])
    what = "Options that are not at their defaults" + (", apart from those of all runs." if shared else ".")
    return [*blocks, Heading("Variants"), Table(what, ["Variant", "Options"], rows)]


def _missing(experiment: Experiment, run: RunResults) -> str:
    """Return what a run lacks; empty if nothing."""
    if not experiment.unfinished(run):
        return "" if run.rows else "its CSV file is missing"
    if run.state == "not started":
        return "not started"
    epochs = run.options.get("epochs")
    end = f"epoch {run.epoch}" + (f" of {epochs}" if epochs else "") if run.rows else "no rows yet"
    if run.state == "unknown":
        return f"it ends at {end}, before others of its game"
    error = str(run.record.get("error") or "")
    return f"{run.state}, {end}" + (f". {error}" if error else "")


def _words(values: Mapping[str, Any]) -> str:
    return shlex.join(word for name, value in values.items() for word in (f"--{name}", as_word(value)))


# Learning curves


def _learning_curves(experiment: Experiment) -> list[Block]:
    panels = [_curves_of(experiment, game) for game in experiment.games]
    intro = f"The band is the {_INTERVAL}. With few seeds it is too narrow. One seed has no band. "
    intro += "Each point is over the seeds that have it. The line is dotted where some have not got so far yet."
    if experiment.phase == "train":
        intro += " The runs have no tests, so the scores are those of training."
    return [Heading("Learning curves"), Text(intro), Figures(panels)]


def _curves_of(experiment: Experiment, game: str) -> Panel:
    shown: dict[str, Curve] = {}
    for variant in experiment.variants:
        runs = [run.rows for run in experiment.select(game, variant) if run.rows and len(run.scores(experiment.phase))]
        if runs:
            x, y = curves.by_epoch(runs, "average_reward", experiment.phase)
            shown[variant] = Curve(curves.mean_places(x), evaluation.curve(y), np.isfinite(y).sum(axis=0))
    last = "; ".join(f"{variant} ends at {_number(y.value[-1])}" for variant, (_, y, _) in shown.items())
    caption = (
        "How to read it: a higher line is a better mean score over the seeds. Where bands overlap, the difference "
        "may be chance."
    )
    draw = partial(figures.draw_curves, curves=shown, variants=experiment.variants, unit="points per game")
    return Panel(game, f"Learning curves of {game}: {last or 'no game has ended yet'}", caption, draw)


# Scores


class Result(NamedTuple):
    """The scores of a run."""

    run: RunResults
    final: float
    best: float


def _results(experiment: Experiment, game: str, variant: str) -> list[Result]:
    """Return the scores of the runs that have any."""
    found = [(run, run.scores(experiment.phase)) for run in experiment.select(game, variant)]
    return [Result(run, float(scores[-1]), float(scores.max())) for run, scores in found if len(scores)]


def _scores(experiment: Experiment) -> list[Block]:
    rows = []
    for game in experiment.games:
        reference = experiment.reference(game)
        for variant in experiment.variants:
            results = _results(experiment, game, variant)
            if not results:
                rows.append([game, variant, "–", "–", "–", "–", "–"])
                continue
            finals, bests = (np.array([getattr(result, name) for result in results]) for name in ("final", "best"))
            final = evaluation.estimate(evaluation.mean, [finals])
            human = "–"
            if reference:
                low_high = [(score - reference.random) / (reference.human - reference.random) for score in final]
                human = _estimate(Estimate(*low_high), percent=True)
            each = [
                ", ".join(
                    f"{_number(score)}{'*' if experiment.unfinished(result.run) else ''}"
                    for score, result in zip(scores, results, strict=True)
                )
                for scores in (finals, bests)
            ]
            best = _estimate(evaluation.estimate(evaluation.mean, [bests]))
            rows.append([game, variant, _estimate(final), human, best, *each])
    phase = "test" if experiment.phase == "test" else "training epoch"
    caption = (
        f"Mean score per game of the last and of the best {phase}, over the seeds, with the 95 % bootstrap "
        "interval. The best is higher than what the network earns on average, because it is a maximum. "
        "Human-normalised: 0 % is random play, 100 % a human."
    )
    columns = ["Game", "Variant", "Final score", "Human-normalised", "Best score", "Final of each seed"]
    return [Heading("Scores"), Table(caption, [*columns, "Best of each seed"], rows, 2)]


def _number(value: float) -> str:
    return "–" if math.isnan(value) else mean_text(value, 1 if abs(value) < 1000 else 0)


def _estimate(estimate: Estimate, percent: bool = False) -> str:
    """Return a value with its interval: 12.3 [10.1, 14.0]."""

    def text(value: float) -> str:
        return f"{100 * value:.0f}" if percent else _number(value)

    unit = " %" if percent else ""
    if np.isnan(estimate.low):
        return text(float(estimate.value)) + unit
    return f"{text(float(estimate.value))} [{text(float(estimate.low))}, {text(float(estimate.high))}]{unit}"


# All games together


def _raw_scores(experiment: Experiment, games: Sequence[str], variant: str, score: str) -> list[Floats]:
    """Return the scores of a variant, one array per game; [] if a game has none."""
    scores = [np.array([getattr(r, score) for r in _results(experiment, game, variant)]) for game in games]
    return scores if all(map(len, scores)) else []


def _all_games(experiment: Experiment, score: str) -> list[Block]:
    heading = Heading("All games together")
    references = {game: known for game in experiment.games if (known := experiment.reference(game))}
    others = [game for game in experiment.games if game not in references]
    if not references:
        return [heading, Text(f"There are no human scores for {', '.join(others)}, so no normalised scores.")]
    normalised = {}
    for variant in experiment.variants:
        raw = _raw_scores(experiment, list(references), variant, score)
        pairs = zip(raw, references.values(), strict=False)
        normalised[variant] = [(scores - r.random) / (r.human - r.random) for scores, r in pairs]
    without = [variant for variant, scores in normalised.items() if not scores]
    normalised = {variant: scores for variant, scores in normalised.items() if scores}
    text = f"The {score} score of each run, normalised: 0 is random play, 1 a human. "
    text += f"Games: {', '.join(references)}."
    text += f" No human score is known for {', '.join(others)}." if others else ""
    text += f" Not here, because a game has no scores yet: {', '.join(without)}." if without else ""
    if not normalised:
        return [heading, Text(text)]
    estimates = {
        variant: {name: evaluation.estimate(metric, scores) for name, metric in _METRICS.items()}
        for variant, scores in normalised.items()
    }
    rows = [[variant, *(_two_decimals(e) for e in its.values())] for variant, its in estimates.items()]
    caption = (
        "With 95 % bootstrap intervals. IQM: mean of the middle half of all runs, which outliers do not change. "
        "Median and mean are of the games' means. Optimality gap: how much is lacking to a human (less is better)."
    )
    return [
        heading,
        Text(text),
        Table(caption, ["Variant", *_METRICS], rows),
        Figures([_iqm_panel(experiment, estimates), _profile_panel(experiment, normalised)]),
    ]


def _two_decimals(e: Estimate) -> str:
    bounds = "" if np.isnan(e.low) else f" [{e.low:.2f}, {e.high:.2f}]"
    return f"{e.value:.2f}{bounds}"


def _iqm_panel(experiment: Experiment, estimates: Mapping[str, Mapping[str, Estimate]]) -> Panel:
    iqm = {variant: its["IQM"] for variant, its in estimates.items()}
    colours = [experiment.variants.index(variant) for variant in iqm]
    alt = "; ".join(f"{variant} {_two_decimals(e)}" for variant, e in iqm.items())
    caption = (
        "How to read it: a dot further right is a better variant. The bar is its 95 % stratified bootstrap interval. "
        f"If two bars do not overlap, {_UNLIKELY}"
    )
    draw = partial(figures.draw_estimates, estimates=iqm, colours=colours, label="human-normalised score")
    return Panel("Interquartile mean", f"Interquartile mean: {alt}", caption, draw, len(iqm))


def _profile_panel(experiment: Experiment, normalised: Mapping[str, Sequence[Floats]]) -> Panel:
    everything = np.concatenate([scores for its in normalised.values() for scores in its])
    margin = 0.05 * (np.ptp(everything) or 1)
    thresholds = np.linspace(everything.min() - margin, everything.max() + margin, 101)
    profiles = {
        variant: evaluation.estimate(partial(evaluation.profile, thresholds=thresholds), scores)
        for variant, scores in normalised.items()
    }
    caption = (
        "How to read it: each line tells which fraction of the runs has more than the score below it. A line that "
        "is higher everywhere belongs to a better variant. The band is the 95 % stratified bootstrap interval."
    )
    draw = partial(figures.draw_profiles, thresholds=thresholds, profiles=profiles, variants=experiment.variants)
    return Panel("Performance profiles", f"Performance profiles of {', '.join(profiles)}", caption, draw)


def _improvements(experiment: Experiment, score: str) -> list[Block]:
    scores = {variant: _raw_scores(experiment, experiment.games, variant, score) for variant in experiment.variants}
    compared = [variant for variant, its in scores.items() if its]
    pairs = [(ours, other) for i, other in enumerate(compared) for ours in compared[i + 1 :]]
    if len(pairs) > _MANY_PAIRS:
        pairs = [(ours, other) for ours, other in pairs if other == compared[0]]
    if not pairs:
        return []
    estimates = {
        f"{ours} > {other}": evaluation.estimate(evaluation.improvement, scores[ours], scores[other])
        for ours, other in pairs
    }
    caption = (
        "How to read it: 1 means that every run of the first variant beats every run of the second one on the same "
        "game, 0.5 (dashed) that both are equally good. The bar is the 95 % stratified bootstrap interval. "
        f"If it does not reach 0.5, {_UNLIKELY}"
    )
    alt = "; ".join(f"{pair} {_two_decimals(e)}" for pair, e in estimates.items())
    colours = [experiment.variants.index(ours) for ours, _ in pairs]
    draw = partial(figures.draw_estimates, estimates=estimates, colours=colours, label="probability", line=0.5)
    panel = Panel("Probability of improvement", f"Probability of improvement: {alt}", caption, draw, len(pairs))
    text = f"By the {score} scores of all games, on the same game, averaged over the games."
    rows = [[pair, _two_decimals(e)] for pair, e in estimates.items()]
    table = Table(
        "Probability that a run of the first variant beats one of the second, with its interval.",
        ["Pair", "Probability"],
        rows,
    )
    return [Heading("Probability of improvement"), Text(text), Figures([panel]), table]


# Films and runs


def _films(experiment: Experiment, folder: Path) -> list[Block]:
    films, missing = [], []
    for game in experiment.games:
        results = [result for variant in experiment.variants for result in _results(experiment, game, variant)]
        if not results:
            missing.append(f"{game}: no film, because no run has a score yet")
            continue
        best = max(results, key=lambda result: result.best)
        film = film_of(best.run, experiment.name, folder, _best_epoch(best, experiment.phase))
        if film.content:
            best_of = "test" if experiment.phase == "test" else "epoch of training"
            caption = f"the best run, {best.run.name}, with {_number(best.best)} points in its best {best_of}."
            link = f"../../videos/{experiment.name}/{film.path.name}"
            films.append((game, f"{caption} At most the first 30 seconds of a game.", film.content, link))
        else:
            missing.append(f"{game}: {film.why}")
    return [Heading("Films"), *([Films(films)] if films else []), *([Items(missing)] if missing else [])]


def _best_epoch(result: Result, phase: str) -> int:
    assert result.run.rows
    table = result.run.rows.table
    best = (np.array(table.phases) == phase) & (table.columns["average_reward"] == result.best)
    return int(table.columns["epoch"][best][-1])


def _runs(experiment: Experiment, defaults: Mapping[str, Any]) -> list[Block]:
    columns = ["Run", "Seed", "State", "Epoch", "Frames", "Hours", "Machine", "Commit", "Options"]
    rows = []
    for run in experiment.runs:
        its = [other.options for other in experiment.runs if other.variant == run.variant and other.options]
        shared = common(its) if its else {}
        frames = f"{np.nanmax(run.rows.x):,.0f}" if run.rows else "–"
        special = {name: value for name, value in differing(run.options, defaults).items() if name not in shared}
        rows.append([
            run.name, run.seed or "–", run.state, str(run.epoch or "–"), frames, f"{run.hours:.2f}",
            run.facts("machine") or "–", run.facts("commit") or "–", _words(special) or "–",
        ])  # fmt: skip
    caption = (
        "Options: those not at their defaults that differ from other runs of the variant; the table of variants "
        "has the others."
    )
    return [Heading("Runs"), Table(caption, columns, rows)]
