"""The film on the filter page: a game in colour at its own speed, and in orange the pixels that influenced each action.

The page contains one video without sound. Each picture of it shows a step of the game at the left and its saliency at
the right, so that the two cannot get out of step. film.js draws the saliency over the game.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from fractions import Fraction
from html import escape
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simple_dqn.environment import Picture
from simple_dqn.learning.guided import Network, guided_q_value, saliency
from simple_dqn.reports.scores import score_text, shortest
from simple_dqn.watching.display import QScale
from simple_dqn.watching.film import BT_601

_MAX_MOMENTS = 3000  # 200 seconds of an Atari game, for which the page needs about a megabyte
_MAX_BYTES = 2**27  # of the states in memory
_STRETCHES = 20  # an even number
_CHUNK = 2**21  # bytes of the states in one batch: 64 states of 84x84, for which the network needs 40 MB
_MAX_SIDE = 210  # of a picture, pixels: Atari's height
# Browsers play VP9 on every system. These options are four times as fast as the default, for files as small.
_VP9 = {"crf": "40", "b": "0", "deadline": "realtime", "cpu-used": "7", "g": "150"}


class Moment(NamedTuple):
    """A step of a game."""

    game: int  # counted from 1
    step: int  # of this game, from 1
    score: float  # before it
    action: int
    q_values: NDArray[np.floating[Any]]  # (num_actions,), as the network predicts them, in its data type
    state: NDArray[np.uint8]  # (history, height, width), in which the agent chose the action
    picture: bytes  # the last frame of the state, see `packed`


class Film:
    """Keeps the moments of every n-th stretch of the games. n doubles whenever there are too many moments.

    Attributes:
        moments: the moments kept.
        every: n.
        stretch: moments in a stretch.
    """

    def __init__(self) -> None:
        self.moments: list[Moment] = []
        self.every = self.stretch = 1
        self._added = 0

    def add(self, moment: Moment) -> None:
        """Receive the next moment of the game."""
        self.stretch = max(1, min(_MAX_MOMENTS, _MAX_BYTES // moment.state.nbytes) // _STRETCHES)
        if self._added // self.stretch % self.every == 0:
            if len(self.moments) == _STRETCHES * self.stretch:
                self.moments = [kept for i, kept in enumerate(self.moments) if i // self.stretch % 2 == 0]
                self.every *= 2  # the new moment is the first of a stretch that counts, because _STRETCHES is even
            self.moments.append(moment)
        self._added += 1


def packed(picture: Picture) -> bytes:
    """A picture, at most `_MAX_SIDE` pixels wide and high, as PNG, because thousands would need too much memory."""
    import cv2

    height, width, _ = picture.shape
    scale = _MAX_SIDE / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    _, png = cv2.imencode(".png", picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])  # OpenCV has blue first
    return png.tobytes()


def _unpacked(png: bytes) -> Picture:
    import cv2

    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return np.asarray(picture[..., ::-1], np.uint8)


class Scene(NamedTuple):
    """A moment with its explanation."""

    moment: Moment
    saliency: NDArray[np.uint8]  # (height, width), how much each pixel influenced the action, from 0 to 255


def explain(network: Network, moments: Sequence[Moment]) -> list[Scene]:
    """Explain moments."""
    explained: list[Scene] = []
    batch = max(1, _CHUNK // moments[0].state.nbytes) if moments else 1
    for start in range(0, len(moments), batch):
        chunk = moments[start : start + batch]
        states, actions = np.stack([moment.state for moment in chunk]), np.array([moment.action for moment in chunk])
        guided = guided_q_value(network, states, actions)
        explained += map(Scene, chunk, np.rint(255 * saliency(guided.pixels)).astype(np.uint8))
    return explained


def film_section(
    scenes: Sequence[Scene], action_names: Sequence[str], film: Film, steps_per_second: float, pixel_width: float
) -> str:
    """The HTML of the film. Empty if there are no scenes.

    Args:
        scenes: the moments of `film`, explained.
        action_names: of the game.
        film: it knows which moments it left out.
        steps_per_second: natural speed of the game.
        pixel_width: of the pictures' pixels, in pixel heights.
    """
    if not scenes:
        return ""
    rate = Fraction(steps_per_second).limit_denominator(1001)
    layout = _Layout.of(scenes[0])
    scale = QScale().including(np.concatenate([scene.moment.q_values for scene in scenes]))
    facts = json.dumps(
        dict(
            rate=float(rate),
            layout=layout,
            scale=scale,
            actions=list(action_names),
            moments=[_numbers(scene) for scene in scenes],
            video=base64.b64encode(_video(scenes, layout, rate)).decode(),
        ),
        separators=(",", ":"),
    ).replace("<", "\\u003c")  # so that no name of an action can end the script
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td></td><td><div class="bar"></div></td></tr>'
        for name in action_names
    )
    height, width = layout.height, round(layout.width * pixel_width)
    return f"""<section id="film" aria-labelledby="film-title">
<h2 id="film-title">The game</h2>
<p>{_what(len(scenes), film, float(rate))}</p>
<noscript><p>The film needs JavaScript.</p></noscript>
<p id="no-video" hidden>This browser cannot play the film, which is a VP9 video.</p>
<div class="film">
<div class="pair" tabindex="0" role="group" aria-label="Picture of the game"
 style="--width:560px;--shape:{width}/{height}">
<figure><div class="view"><div class="stage"><video id="video" muted playsinline aria-label="The game"
 style="width:{layout.total_width / layout.width:.4%};height:{layout.total_height / layout.height:.4%}"></video>
<canvas id="heat" width="{layout.heat_width}" height="{layout.heat_height}" aria-hidden="true"></canvas></div></div>
</figure></div>
<div class="reading">
<dl class="facts" id="facts"><div><dt>When</dt><dd></dd></div><div><dt>Score so far</dt><dd></dd></div>
<div><dt>Action</dt><dd></dd></div></dl>
<table id="q" style="--zero:{scale.position(0):.2%}"><caption>Q-values, the highest in bold. All bars start at 0 and
have one scale for the whole film: {_number(scale.low)} to {_number(scale.high)}.</caption>
<tbody>{rows}</tbody>
<tfoot><tr><td colspan="2"></td><td>{_scale_ends(scale)}</td></tr></tfoot></table>
</div>
</div>
{_curve(scenes, scale)}
<div class="controls">
<input type="range" id="moment" min="0" max="{len(scenes) - 1}" value="0" aria-label="Moment of the game">
<button type="button" id="play">Play</button>
<label>Speed <select id="speed"><option value="0.1">1/10</option><option value="0.25">1/4</option>
<option value="1" selected>1</option><option value="2">2</option></select></label>
<label>Orange <input type="range" id="opacity" min="0" max="100" value="80" aria-label="Strength of the orange"></label>
<span class="hint"><kbd>space</kbd> plays and pauses, <kbd>←</kbd> <kbd>→</kbd> go one step</span>
</div>
<p>The orange pixels influenced the Q-value of the chosen action most, in any of the screens that the network saw
(guided back-propagation). Each moment has its own contrast. The stronger the orange, the darker the game, because games
have orange pixels too.</p>
<script type="application/json" id="moments">{facts}</script>
</section>
"""


def _what(shown: int, film: Film, rate: float) -> str:
    """What the film shows, and how fast."""
    seconds = f"{shown / rate:.0f} seconds" if shown >= 2 * rate else f"{shown / rate:.2g} seconds"
    speed = f"{rate:.3g} steps a second, as the game is played"
    if film.every == 1:
        return f"Every step, {shown} in {seconds}: {speed}."
    part = {2: "half"}.get(film.every, f"1/{film.every}")
    return (
        f"The film shows {part} of the game: {film.stretch} steps in a row, then a cut of "
        f"{film.stretch * (film.every - 1)} steps, and so on, {shown} steps in {seconds}. It plays {speed}."
    )


def _numbers(scene: Scene) -> list[object]:
    """The numbers of a scene that the page contains: game, step, score, action, best action (-1: none), Q-values."""
    game, step, score, action, q_values, *_ = scene.moment
    finite = np.isfinite(q_values)
    shown = [float(f"{q:.4g}") if known else None for q, known in zip(q_values, finite, strict=True)]
    best = int(np.where(finite, q_values, -np.inf).argmax()) if finite.any() else -1  # rounded ones may be equal
    return [game, step, shortest(float(score_text(score))), action, best, shown]


def _scale_ends(scale: QScale) -> str:
    """The numbers below the bars: the ends of their scale, and 0 if there is room for it."""
    zero = '<span class="zero">0</span>' if 0.15 < scale.position(0) < 0.85 else ""
    return f'<div class="scale"><span>{_number(scale.low)}</span>{zero}<span>{_number(scale.high)}</span></div>'


def _number(number: float) -> str:
    return f"{number:.3g}".replace("-", "−")


def _curve(scenes: Sequence[Scene], scale: QScale) -> str:
    """The curve above the slider: the highest Q-value of each moment, on the scale of the bars."""
    highest = np.array([scene.moment.q_values.max() for scene in scenes])
    if not np.isfinite(highest).all():
        return ""
    points = " ".join(f"{x},{38 - 36 * scale.position(float(q)):.1f}" for x, q in enumerate(highest))
    label = f"The highest Q-value at each moment, from {_number(highest.min())} to {_number(highest.max())}"
    label += ". The scale is that of the bars."
    return f"""<figure class="curve"><svg role="img" aria-label="{label}" viewBox="0 0 {max(1, len(scenes) - 1)} 40"
 preserveAspectRatio="none"><polyline points="{points}"/><line id="now" x1="0" x2="0" y1="0" y2="40"/></svg>
<figcaption>{label}</figcaption></figure>"""


class _Layout(NamedTuple):
    """Sizes in the video, pixels: the game is at the top left, the saliency at its right."""

    width: int  # of the game
    height: int
    heat_width: int
    heat_height: int
    total_width: int  # even, because VP9 stores colours for 2x2 pixels
    total_height: int

    @staticmethod
    def of(scene: Scene) -> _Layout:
        height, width, _ = (2 * side for side in _unpacked(scene.moment.picture).shape)  # so that no colour is lost
        heat_height, heat_width = _shrunk(scene.saliency).shape
        rows, columns = max(height, heat_height), width + heat_width
        return _Layout(width, height, heat_width, heat_height, columns + columns % 2, rows + rows % 2)


def _shrunk(heat: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A saliency, at most 168 pixels wide and high."""
    import cv2

    height, width = heat.shape
    scale = min(1, 168 / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(heat, size, interpolation=cv2.INTER_AREA), np.uint8)


def _video(scenes: Sequence[Scene], layout: _Layout, rate: Fraction) -> bytes:
    """A WebM file with a picture for each scene."""
    import av

    file = io.BytesIO()
    # bitexact: without a random number, so that the same game gives the same page
    with av.open(file, "w", format="webm", options={"fflags": "bitexact"}) as container:
        stream = container.add_stream(
            "libvpx-vp9", rate=rate, width=layout.total_width, height=layout.total_height, pix_fmt="yuv420p",
            options=_VP9,
        )  # fmt: skip
        stream.codec_context.colorspace = BT_601
        picture = np.zeros((layout.total_height, layout.total_width, 3), np.uint8)
        for number, scene in enumerate(scenes):
            game = _unpacked(scene.moment.picture)
            picture[: layout.height, : layout.width] = game.repeat(2, axis=0).repeat(2, axis=1)
            picture[: layout.heat_height, layout.width :][:, : layout.heat_width] = _shrunk(scene.saliency)[..., None]
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()
