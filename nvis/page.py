"""The filter page: one HTML file with everything in it, pictures included, that needs neither network nor library."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simple_dqn.learning.guided import Box, Floats
from simple_dqn.reports.scores import score_text

Screens = NDArray[np.uint8]  # (history, height, width)
_STYLE, _SCRIPT, _FILM_SCRIPT = (
    Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js", "film.js")
)
_WIDTH = 252  # of a picture that is not zoomed, CSS pixels: three for one of 84


class Header(NamedTuple):
    """What was played."""

    game: str
    snapshot: str
    scores: list[float]  # of the games that were played to the end
    broken_off: float | None  # score of a game that was not


class Firing(NamedTuple):
    """When a filter was most active, and what made it so."""

    activation: float
    game: int
    step: int
    action: str
    box: Box  # what the unit sees
    pixels: Floats  # (history, height, width), from guided back-propagation
    state: Screens


class Section(NamedTuple):
    """A layer and its filters."""

    name: str
    filters: int
    channels: int
    size: tuple[int, int]  # height and width of a filter
    stride: int
    firings: list[Firing | None]  # of the first filters; None for one that never fired


def page(header: Header, sections: Sequence[Section], film: str) -> str:
    """The HTML of the page; `film` is that of its last section."""
    title = f"Filters of {escape(header.game)}"
    links = "".join(f'<li><a href="#layer-{s.name}">Layer {s.name}</a></li>' for s in sections)
    links += '<li><a href="#film-title">The game</a></li>' if film else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<dl class="facts">{_facts(_about(header))}</dl>
<p>For each filter, the moment of the game at which it was most active. At the right is what the network saw then: the
last three screens as red, green and blue, blue the newest; what stands still is grey. At the left is what in it made
the filter fire, found by guided back-propagation: mid grey counts for nothing, brighter pixels drive the filter up,
darker ones down. Each picture of this kind has its own contrast. The box is all that the unit sees.</p>
<p id="keys">Both pictures of a filter zoom and move together: <kbd>wheel</kbd> or <kbd>+</kbd> <kbd>−</kbd> zooms,
<kbd>drag</kbd> or <kbd>arrow keys</kbd> move, <kbd>double click</kbd> or <kbd>0</kbd> shows all again.
<label><input type="checkbox" id="boxes" checked> Show the boxes</label></p>
<nav aria-label="Layers"><ul>{links}</ul></nav>
</header>
<main>
{"".join(_section(section, len(header.scores) + (header.broken_off is not None)) for section in sections)}{film}</main>
<script>{_SCRIPT}</script>
<script>{_FILM_SCRIPT}</script>
</body>
</html>
"""


def _about(header: Header) -> list[tuple[str, str]]:
    scores = [score_text(score) for score in header.scores]
    if header.broken_off is not None:
        scores.append(f"{score_text(header.broken_off)} when it was broken off")
    return [
        ("Game", header.game),
        ("Snapshot", header.snapshot),
        ("Score" if len(scores) < 2 else "Scores", ", ".join(scores) or "none: no step was played"),
    ]


def _section(section: Section, games: int) -> str:
    height, width = section.size
    shown, dead = len(section.firings), section.firings.count(None)
    text = f"{section.filters} filters of {width}×{height} with stride {section.stride}, on {section.channels} channels"
    text += "" if shown == section.filters else f"; the first {shown if shown > 1 else 'one'} of them"
    text += f"; {dead} of these never fired" if dead else ""
    return f"""<section aria-labelledby="layer-{section.name}">
<h2 id="layer-{section.name}">Layer {section.name}</h2>
<p>{text}.</p>
<div class="filters">
{"".join(_filter(section, i, games) for i in range(shown))}</div>
</section>
"""


def _filter(section: Section, index: int, games: int) -> str:
    firing = section.firings[index]
    content = _pair(section, index, firing, games) if firing else "<p>It never fired.</p>\n"
    return f"""<article class="filter" aria-labelledby="filter-{section.name}-{index}">
<h3 id="filter-{section.name}-{index}">Filter {index}<span class="of"> of layer {section.name}</span></h3>
{content}</article>
"""


def _pair(section: Section, index: int, firing: Firing, games: int) -> str:
    """The two pictures of a filter, and the facts."""
    box, (height, width) = firing.box, firing.state.shape[1:]
    when = f"step {firing.step}" if games == 1 else f"game {firing.game}, step {firing.step}"
    where = f"columns {box.left}–{box.left + box.width - 1}, rows {box.top}–{box.top + box.height - 1}"
    name = f"filter {index} of layer {section.name}"
    shown = width * (_WIDTH // width) or _WIDTH  # a whole number of the page's pixels for one of the game's
    pictures = (
        ("what made it fire", f"Guided back-propagation from {name} to {where}", _grey(firing.pixels)),
        ("what the network saw", f"The last three screens at {when}; {name} looks at {where}", firing.state),
    )
    facts = [("Activation", f"{firing.activation:.4g}"), ("When", when), ("Action", firing.action), ("Where", where)]
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
    """A gradient as grey levels: 128 is nothing, 1 and 255 the strongest in the last three screens."""
    strongest = float(np.abs(pixels[-3:]).max())
    scaled = pixels / strongest if 0 < strongest < np.inf else np.zeros_like(pixels)
    levels: Screens = np.rint(128 + 127 * scaled.clip(-1, 1)).astype(np.uint8)
    return levels


def _png(screens: Screens) -> str:
    """The last three screens as red, green and blue, blue the newest; the oldest stands in for those missing."""
    import cv2  # only where it is needed, as it takes its time

    newest = len(screens) - 1
    blue_green_red = np.dstack([screens[max(0, newest - age)] for age in range(3)])  # OpenCV's order
    _, data = cv2.imencode(".png", blue_green_red, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()
