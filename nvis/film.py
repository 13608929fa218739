"""The film on the filter page: a game from beginning to end, and in orange the pixels that influenced each action.

It shows moments at equal distances, at most 300, so that the page stays small for games of any length. The page has one
picture with all screens and one with all saliencies, because a browser decodes a large picture faster than hundreds.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simple_dqn.learning.guided import Floats, Network, guided_q_value, saliency
from simple_dqn.reports.scores import score_text, shortest

_MAX_MOMENTS = 300
_MAX_BYTES = 2**26  # of the states in memory
_CHUNK = 2**21  # bytes of the states in one batch: 64 states of 84x84, for which the network needs 40 MB
_MAX_SIDE = 168  # of a screen on the page, pixels
_COLUMNS = 20  # of screens in the picture of all screens


class Moment(NamedTuple):
    """A step of a game."""

    game: int  # counted from 1
    step: int  # of this game, from 1
    score: float  # before it
    action: int
    state: NDArray[np.uint8]  # (history, height, width), in which the agent chose the action


class Film:
    """Keeps every n-th moment. n doubles whenever there are too many moments.

    Attributes:
        moments: the moments kept.
        every: n.
    """

    def __init__(self) -> None:
        self.moments: list[Moment] = []
        self.every = 1
        self._added = 0

    def add(self, moment: Moment) -> None:
        """Receive the next moment of the game."""
        if self._added % self.every == 0:
            self.moments.append(moment)
            if len(self.moments) > max(2, min(_MAX_MOMENTS, _MAX_BYTES // moment.state.nbytes)):
                self.moments = self.moments[::2]
                self.every *= 2
        self._added += 1


class Scene(NamedTuple):
    """A moment with its explanation."""

    moment: Moment
    q_values: Floats  # (num_actions,)
    saliency: Floats  # (height, width), how much each pixel influenced the action, from 0 to 1


def explain(network: Network, moments: Sequence[Moment]) -> list[Scene]:
    """Explain moments."""
    explained: list[Scene] = []
    batch = max(1, _CHUNK // moments[0].state.nbytes) if moments else 1
    for start in range(0, len(moments), batch):
        chunk = moments[start : start + batch]
        states, actions = np.stack([moment.state for moment in chunk]), np.array([moment.action for moment in chunk])
        guided = guided_q_value(network, states, actions)
        explained += map(Scene, chunk, guided.q_values, saliency(guided.pixels))
    return explained


def film_section(scenes: Sequence[Scene], every: int, action_names: Sequence[str]) -> str:
    """The HTML of the film. Empty if there are no scenes."""
    if not scenes:
        return ""
    screens = _shrunk([scene.moment.state[-1] for scene in scenes])
    heat = _shrunk([np.rint(255 * scene.saliency).astype(np.uint8) for scene in scenes])
    height, width = scenes[0].saliency.shape
    facts = json.dumps(
        dict(
            columns=_COLUMNS,
            width=screens[0].shape[1],
            height=screens[0].shape[0],
            actions=list(action_names),
            moments=[_numbers(scene) for scene in scenes],
        ),
        separators=(",", ":"),
    ).replace("<", "\\u003c")  # so that no name of an action can end the script
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td></td><td><div class="bar"></div></td></tr>'
        for name in action_names
    )
    shown = "step" if every == 1 else f"{_ordinal(every)} step"
    return f"""<section id="film" aria-labelledby="film-title">
<h2 id="film-title">The game</h2>
<p>Every {shown} of the game. The orange pixels influenced the Q-value of the chosen action most, in any of the screens
that the network saw (guided back-propagation). Each moment has its own contrast.</p>
<noscript><p>The film needs JavaScript.</p></noscript>
<div class="film">
<div class="pair" tabindex="0" role="group" aria-label="Picture of the game"
 style="--width:420px;--shape:{width}/{height}">
<figure><div class="view"><div class="stage"><canvas id="screen" role="img" aria-label="The game"></canvas></div></div>
</figure></div>
<div class="reading">
<dl class="facts" id="facts"><div><dt>When</dt><dd></dd></div><div><dt>Score so far</dt><dd></dd></div>
<div><dt>Action</dt><dd></dd></div></dl>
<table id="q"><caption>Q-values, the highest in bold</caption><tbody>{rows}</tbody></table>
</div>
</div>
{_curve(scenes)}
<div class="controls">
<input type="range" id="moment" min="0" max="{len(scenes) - 1}" value="0" aria-label="Moment of the game">
<button type="button" id="play">Play</button>
<label>Orange <input type="range" id="opacity" min="0" max="100" value="80" aria-label="Strength of the orange"></label>
</div>
<img hidden id="screens" alt="All screens of the film" src="{_webp(_sheet(screens), lossless=True)}">
<img hidden id="heat" alt="All saliencies of the film" src="{_webp(_sheet(heat), lossless=False)}">
<script type="application/json" id="moments">{facts}</script>
</section>
"""


def _numbers(scene: Scene) -> list[object]:
    """The numbers of a scene that the page contains: game, step, score, action, Q-values."""
    game, step, score, action, _ = scene.moment
    q_values = [float(f"{q:.4g}") if np.isfinite(q) else None for q in scene.q_values]
    return [game, step, shortest(float(score_text(score))), action, q_values]


def _curve(scenes: Sequence[Scene]) -> str:
    """The curve above the slider: the highest Q-value of each moment."""
    highest = np.array([scene.q_values.max() for scene in scenes], np.float64)
    if not np.isfinite(highest).all():
        return ""
    low, high = highest.min(), highest.max()
    heights = 38 - 36 * (highest - low) / ((high - low) or 1)
    points = " ".join(f"{x},{y:.1f}" for x, y in enumerate(heights))
    label = f"The highest Q-value at each moment, between {low:.3g} and {high:.3g}"
    return f"""<figure class="curve"><svg role="img" aria-label="{label}" viewBox="0 0 {max(1, len(scenes) - 1)} 40"
 preserveAspectRatio="none"><polyline points="{points}"/><line id="now" x1="0" x2="0" y1="0" y2="40"/></svg>
<figcaption>{label}</figcaption></figure>"""


def _ordinal(n: int) -> str:
    return f"{n}{'nd' if n % 10 == 2 and n % 100 != 12 else 'th'}"  # enough, because n is a power of two


def _shrunk(pictures: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Pictures (height, width), resized so that no side is longer than `_MAX_SIDE`."""
    import cv2

    height, width = pictures[0].shape
    scale = _MAX_SIDE / max(height, width)
    if scale >= 1:
        return list(pictures)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return [np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8) for picture in pictures]


def _sheet(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Pictures (height, width) side by side in rows of `_COLUMNS`."""
    height, width = pictures[0].shape
    rows = -(-len(pictures) // _COLUMNS)
    sheet = np.zeros((rows, height, _COLUMNS, width), np.uint8)
    for i, picture in enumerate(pictures):
        sheet[i // _COLUMNS, :, i % _COLUMNS] = picture
    return sheet.reshape(rows * height, _COLUMNS * width)


def _webp(picture: NDArray[np.uint8], lossless: bool) -> str:
    """A grey picture as a data URI. Lossless it has half the size of a PNG file, with loss a quarter."""
    import cv2

    _, data = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, 101 if lossless else 50])
    return "data:image/webp;base64," + base64.b64encode(data.tobytes()).decode()
