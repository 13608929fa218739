"""The HTML of the filter page: one file that includes its pictures and scripts, and needs no network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simple_dqn.learning.guided import Box, Floats
from simple_dqn.reports import html
from simple_dqn.reports.scores import score_text
from simple_dqn.wording import count

Screens = NDArray[np.uint8]  # (history, height, width)
_STYLE, _SCRIPT, _FILM_SCRIPT = (
    Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js", "film.js")
)
_WIDTH = 252  # of a picture before zooming, CSS pixels: three times 84


class Header(NamedTuple):
    """The facts at the top of the page."""

    game: str
    snapshot: str
    scores: list[float]  # of the finished games
    unfinished_score: float | None  # of the game that was interrupted


class ExplainedPeak(NamedTuple):
    """The moment at which a filter was most active."""

    activation: float
    game: int
    step: int
    action: str
    box: Box  # the receptive field of the most active unit
    pixels: Floats  # (history, height, width), gradient of guided back-propagation
    state: Screens


class Section(NamedTuple):
    """A convolutional layer and its filters."""

    number: int  # counted from 1
    neon_name: str
    filters: int
    channels: int
    size: tuple[int, int]  # height and width of a filter
    stride: int
    field: tuple[int, int]  # height and width of the receptive field, pixels of a screen
    peaks: list[ExplainedPeak | None]  # of the first filters; None: never active


def page(header: Header, sections: Sequence[Section], film: str) -> str:
    """The HTML of the page. `film` is the HTML of its first section."""
    title = f"{escape(header.game)}: the game and the filters"
    games = len(header.scores) + (header.unfinished_score is not None)
    links = '<li><a href="#film-title">The game</a></li>' if film else ""
    links += "".join(f'<li><a href="#layer-{s.number}">Filters of conv {s.number}</a></li>' for s in sections)
    sources = "img-src data:; media-src blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    body = f"""<header>
<h1>{title}</h1>
<dl class="facts">{_facts(_about(header))}</dl>
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main>
{film}<section aria-labelledby="filters">
<h2 id="filters">The filters</h2>
<p>Each filter is shown at the moment of the game at which it was most active. The right picture is what the network saw
then: the last three screens as red, green and blue. Blue is the newest; what does not move is grey. The left picture
shows the pixels that activated the filter (guided back-propagation). Brighter pixels increase the activation, darker
pixels decrease it, mid grey has no effect. Each left picture has its own contrast. The box is the receptive field.</p>
<p id="keys">Both pictures of a filter zoom and move together. <kbd>wheel</kbd> or <kbd>+</kbd> <kbd>−</kbd> zooms,
<kbd>drag</kbd> or <kbd>arrow keys</kbd> move, <kbd>double click</kbd> or <kbd>0</kbd> shows the whole picture.
<label><input type="checkbox" id="boxes" checked> Show the boxes</label></p>
</section>
{"".join(_section(section, games) for section in sections)}</main>
<script>{_SCRIPT}</script>
<script>{_FILM_SCRIPT}</script>
"""
    return html.page(title, sources, _STYLE, body)


def _about(header: Header) -> list[tuple[str, str]]:
    scores = [score_text(score) for score in header.scores]
    if header.unfinished_score is not None:
        scores.append(f"{score_text(header.unfinished_score)} when it was interrupted")
    return [
        ("Game", header.game),
        ("Snapshot", header.snapshot),
        ("Score" if len(scores) < 2 else "Scores", ", ".join(scores) or "none: no step was played"),
    ]


def _section(section: Section, games: int) -> str:
    (height, width), (rows, columns) = section.size, section.field
    shown, dead = len(section.peaks), section.peaks.count(None)
    below = f"the {count(section.channels, 'channel')} of conv {section.number - 1}"
    if section.number == 1:
        below = f"the last {section.channels} screens" if section.channels > 1 else "the screen"
    text = f"{count(section.filters, 'filter')} of {width}×{height} with stride {section.stride}, on {below}. "
    text += f"Receptive field: {columns}×{rows} pixels of a screen. "
    text += f"Shown: {'all' if shown == section.filters else f'the first {shown}' if shown > 1 else 'the first'}"
    text += f"; {dead} of these {'was' if dead == 1 else 'were'} never active" if dead else ""
    return f"""<section aria-labelledby="layer-{section.number}">
<h2 id="layer-{section.number}">conv {section.number} <span class="of">Neon’s name: {section.neon_name}</span></h2>
<p>{text}.</p>
<div class="filters">
{"".join(_filter(section, i, games) for i in range(shown))}</div>
</section>
"""


def _filter(section: Section, index: int, games: int) -> str:
    peak = section.peaks[index]
    content = _pair(section, index, peak, games) if peak else "<p>It was never active.</p>\n"
    return f"""<article class="filter" aria-labelledby="filter-{section.number}-{index}">
<h3 id="filter-{section.number}-{index}">Filter {index}<span class="of"> of conv {section.number}</span></h3>
{content}</article>
"""


def _pair(section: Section, index: int, peak: ExplainedPeak, games: int) -> str:
    """The two pictures of a filter, and its facts."""
    box, (height, width) = peak.box, peak.state.shape[1:]
    when = f"step {peak.step}" if games == 1 else f"game {peak.game}, step {peak.step}"
    where = f"columns {box.left}–{box.left + box.width - 1}, rows {box.top}–{box.top + box.height - 1}"
    name = f"filter {index} of conv {section.number}"
    shown = width * (_WIDTH // width) or _WIDTH  # an integer scale, if the screen is small enough
    pictures = (
        ("what activated it", f"Guided back-propagation from {name} to {where}", _grey(peak.pixels)),
        ("what the network saw", f"The last three screens at {when}; {name} looks at {where}", peak.state),
    )
    facts = [("Activation", f"{peak.activation:.4g}"), ("When", when), ("Action", peak.action), ("Where", where)]
    return f"""<div class="pair" tabindex="0" role="group" aria-label="Pictures of {name}"
 style="--width:{shown}px;--shape:{width}/{height}">
{"".join(_picture(*picture, box) for picture in pictures)}</div>
<dl class="facts">{_facts(facts)}</dl>
"""


def _picture(caption: str, alt: str, screens: Screens, box: Box) -> str:
    height, width = screens.shape[1:]
    place = f"left:{100 * box.left / width:.4g}%;top:{100 * box.top / height:.4g}%;"
    place += f"width:{100 * box.width / width:.4g}%;height:{100 * box.height / height:.4g}%"
    image = f'<img alt="{escape(alt)}" width="{width}" height="{height}" src="{_png(screens)}">'
    return f"""<figure><div class="view"><div class="stage">{image}<div class="box" style="{place}"></div></div></div>
<figcaption>{caption}</figcaption></figure>
"""


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)


def _grey(pixels: Floats) -> Screens:
    """A gradient as grey levels: 128 is 0; 1 and 255 are the strongest of the last three screens."""
    strongest = float(np.abs(pixels[-3:]).max())
    scaled = pixels / strongest if 0 < strongest < np.inf else np.zeros_like(pixels)
    levels: Screens = np.rint(128 + 127 * scaled.clip(-1, 1)).astype(np.uint8)
    return levels


def _png(screens: Screens) -> str:
    """The last three screens as red, green and blue, blue the newest. The oldest replaces missing ones."""
    import cv2  # only here, because the import is slow

    newest = len(screens) - 1
    blue_green_red = np.dstack([screens[max(0, newest - age)] for age in range(3)])  # OpenCV's order
    _, data = cv2.imencode(".png", blue_green_red, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()
