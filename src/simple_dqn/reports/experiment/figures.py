"""The figures of the report: panels that are drawn alone for the page, and together for the picture."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simple_dqn.reports.experiment.evaluation import Estimate
from simple_dqn.reports.figure import MAX_PIXELS, THEMES, drawing, look
from simple_dqn.reports.table import Floats

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 5.4, 3.6  # inches of a panel; at 72 pixels per inch it fits a telephone
_DPI = 110  # of the picture


class Curve(NamedTuple):
    """The learning curve of a variant."""

    x: Floats
    y: Estimate
    seeds: NDArray[np.int64]  # how many have the point


class Panel(NamedTuple):
    """A figure of the report."""

    title: str
    alt: str  # what it shows, for readers who do not see it
    caption: str  # how to read it
    draw: Callable[[Axes], None]
    rows: int = 8  # of estimates; more make it taller


def svg(panel: Panel, number: int) -> str:
    """Return a panel as an SVG element whose colours are variables of the page, such as var(--ink).

    Args:
        panel: what to draw.
        number: of the figure on the page, because identifiers must be unique on it.
    """
    with drawing("light"):
        import matplotlib
        from matplotlib.figure import Figure

        matplotlib.rcParams["svg.hashsalt"] = f"report {number}"
        figure = Figure(figsize=(_WIDTH, _HEIGHT * max(1, panel.rows / 9)), layout="constrained")
        _draw(panel, figure.add_subplot())
        _draw_legend(figure)
        data = io.StringIO()
        figure.savefig(data, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = data.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' id="[A-Za-z]+[\w.]*_\d+"', "", text)  # of groups, which nothing refers to
    text = re.sub(r'<svg .*?viewBox="([^"]*)".*?>', r'<svg viewBox="\1" role="img" aria-hidden="true">', text, count=1)
    for colour, name in page_colours()["light"].items():
        text = text.replace(colour, f"var(--{name})")
    return text


def page_colours() -> dict[str, dict[str, str]]:
    """Return the name of each colour, by theme."""
    return {
        key: {colour: f"c{i}" for i, colour in enumerate(theme.experiments)}
        | {theme.paper: "paper", theme.ink: "ink", theme.grid: "line"}
        for key, theme in THEMES.items()
    }


def png(title: str, panels: Sequence[Panel]) -> bytes:
    """Return all panels in one picture."""
    columns = min(3, max(1, math.ceil(math.sqrt(len(panels)))))
    rows = math.ceil(len(panels) / columns)
    width, height = _WIDTH * columns, _HEIGHT * rows + 0.9  # inches
    with drawing("light"):
        from matplotlib.figure import Figure

        figure = Figure((width, height), dpi=min(_DPI, MAX_PIXELS / height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, axis in zip(panels, axes, strict=False):
            _draw(panel, axis)
        for axis in axes[len(panels) :]:
            axis.remove()
        figure.suptitle(title, fontsize=min(17, 110 * width / len(title)))
        _draw_legend(figure)
        data = io.BytesIO()
        figure.savefig(data, format="png")
    return data.getvalue()


def _draw(panel: Panel, axes: Axes) -> None:
    axes.set_title(panel.title, fontsize=12)
    panel.draw(axes)


def _draw_legend(figure: Figure) -> None:
    """Draw the variants of all panels below them."""
    variants: dict[str, Artist] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        variants |= dict(zip(labels, handles, strict=True))
    if variants:
        widest = max(map(len, variants)) / 11 + 0.8  # inches, roughly
        columns = max(1, min(len(variants), int(figure.get_figwidth() / widest)))
        figure.legend(variants.values(), variants, loc="outside lower center", ncols=columns)


# What panels draw


def draw_curves(axes: Axes, curves: Mapping[str, Curve], variants: Sequence[str], unit: str) -> None:
    """Draw a line and a band per variant, over frames. The line is dotted where seeds are missing."""
    from matplotlib.ticker import EngFormatter

    axes.set_xlabel("frames")
    axes.set_ylabel(unit)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 500k, 2M
    for variant, (x, y, seeds) in curves.items():
        _draw_line(axes, x, y, variant, variants, np.flatnonzero(seeds == seeds.max())[-1] + 1)
    if not curves:
        axes.text(0.5, 0.5, "no game has ended yet", transform=axes.transAxes, ha="center", va="center")


def draw_profiles(axes: Axes, thresholds: Floats, profiles: Mapping[str, Estimate], variants: Sequence[str]) -> None:
    """Draw the fraction of runs above each score, a line and a band per variant."""
    axes.set_xlabel("human-normalised score")
    axes.set_ylabel("fraction of runs above it")
    axes.set_ylim(-0.02, 1.02)
    for variant, fractions in profiles.items():
        _draw_line(axes, thresholds, fractions, variant, variants, len(thresholds), "post")


def _draw_line(
    axes: Axes, x: Floats, y: Estimate, variant: str, variants: Sequence[str], whole: int,
    step: Literal["post"] | None = None,
) -> None:  # fmt: skip
    """Draw a line with its band. From the point `whole` on it is dotted."""
    style = look("test", variants.index(variant), max(2, len(variants)), THEMES["light"])
    style |= dict(markevery=max(1, len(x) // 8), drawstyle="steps-post" if step else "default")
    if np.isfinite(y.low).any():
        axes.fill_between(x, y.low, y.high, color=style["color"], alpha=0.2, linewidth=0, step=step)
    axes.plot(x[:whole], y.value[:whole], **style, label=_label(variant))
    axes.plot(x[whole - 1 :], y.value[whole - 1 :], **style | dict(marker="", linestyle=(0, (1, 1.5))))


def _label(variant: str) -> str:
    return variant.lstrip("_") or "no label"  # because matplotlib hides labels that begin with _


def draw_estimates(
    axes: Axes, estimates: Mapping[str, Estimate], colours: Sequence[int], label: str, line: float | None = None
) -> None:
    """Draw a point and its interval per row.

    Args:
        axes: where to draw.
        estimates: by the label of the row.
        colours: the number of each row's colour.
        label: of the x axis.
        line: where a vertical line stands.
    """
    theme = THEMES["light"].experiments
    for row, (value, low, high) in enumerate(estimates.values()):
        colour = theme[colours[row] % len(theme)]
        axes.plot([low, high], [row, row], color=colour, linewidth=7, alpha=0.35, solid_capstyle="butt")
        axes.plot([value], [row], "o", color=colour, markersize=7)
    axes.set_yticks(range(len(estimates)), list(estimates))
    axes.set_ylim(len(estimates) - 0.5, -0.5)  # the first on top
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(label)
    if line is not None:
        axes.axvline(line, color=THEMES["light"].ink, linewidth=1, linestyle=(0, (4, 3)))
