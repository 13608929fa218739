"""The filter page: complete, accessible, and with the right pictures."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from nvis.film import Film, Moment, Scene, film_section, packed
from nvis.page import ExplainedPeak, Header, Section, page
from simple_dqn.learning.guided import Box


class Page(HTMLParser):
    """Parses a page and checks that each element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def film_scenes(
    n: int, shape: tuple[int, int] = (5, 6), picture: tuple[int, int] = (8, 6), q: Sequence[float] = (0.5, -1.25)
) -> list[Scene]:
    """n scenes. The pictures of scene i are green of strength 10·i. The left half of every second scene is salient."""
    found = []
    for i in range(n):
        green = np.zeros((*picture, 3), np.uint8)
        green[..., 1] = 10 * i % 256
        heat = np.zeros(shape, np.uint8)
        heat[:, : shape[1] // 2] = 255 * (i % 2)
        state = np.zeros((4, *shape), np.uint8)
        moment = Moment(1, 4 * i + 1, -i, i % len(q), np.array(q, np.float32), state, packed(green))
        found.append(Scene(moment, heat))
    return found


def film_html(scenes: Sequence[Scene], names: Sequence[str] = ("NOOP", "FIRE")) -> str:
    return film_section(scenes, names, Film(), steps_per_second=15, pixel_width=1.75)


def make_page(state: NDArray[np.uint8], pixels: NDArray[np.float32], snapshot: str = "snapshots/pong_1.pkl") -> str:
    peak = ExplainedPeak(1.5, 1, 42, "LEFTFIRE", Box(1, 2, 3, 2), pixels, state)
    header = Header("pong", snapshot, [-21.0], None)
    sections = [
        Section(1, "Convolution_0", 32, 4, (8, 8), 4, (8, 8), [peak, None]),
        Section(2, "Convolution_1", 1, 32, (4, 3), 2, (20, 16), [None]),
    ]
    return page(header, sections, film_html(film_scenes(2), ["NOOP", "<FIRE>"]))


def pictures(text: str) -> list[NDArray[np.uint8]]:
    """The pictures, (height, width, 3)."""
    found = []
    for image in Page(text).all("img"):
        start, data = (image["src"] or "").split(",")
        assert start == "data:image/png;base64"
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        found.append(picture[..., ::-1].astype(np.uint8))
    return found


def test_page_is_complete_and_needs_no_other_file() -> None:
    text = make_page(np.zeros((4, 5, 6), np.uint8), np.zeros((4, 5, 6), np.float32), snapshot="<b>\"&'.pkl")
    assert "&lt;b&gt;&quot;&amp;&#x27;.pkl" in text
    tree = Page(text)
    assert not re.search(r"https?:|//[a-z]|url\(|@import", re.sub(r'src="data:[^"]*"|"video":"[^"]*"', "", text))
    linking = [name for name, attributes in tree.tags if {"src", "href"} & set(attributes)]
    assert linking == ["a", "a", "a", "img", "img"]
    ids = [attributes["id"] for _, attributes in tree.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in tree.tags:
        assert attributes.get("aria-labelledby") in (None, *ids)
        assert (attributes.get("href") or "#keys")[1:] in ids
    headings = re.findall("<h([1-6]).*?>(.*?)</h", re.sub("</?span.*?>", "", text))
    assert headings == [
        ("1", "pong: the game and the filters"), ("2", "The game"), ("2", "The filters"),
        ("2", "conv 1 Neon’s name: Convolution_0"), ("3", "Filter 0 of conv 1"), ("3", "Filter 1 of conv 1"),
        ("2", "conv 2 Neon’s name: Convolution_1"), ("3", "Filter 0 of conv 2"),
    ]  # fmt: skip
    assert (
        "32 filters of 8×8 with stride 4, on the last 4 screens. Receptive field: 8×8 pixels of a screen. "
        "Shown: the first 2; 1 of these was never active." in text
    )
    assert "1 filter of 3×4 with stride 2, on the 32 channels of conv 1. Receptive field: 16×20 pixels" in text
    assert all(image["alt"] for image in tree.all("img"))
    assert [pair["tabindex"] for pair in tree.all("div") if pair.get("role") == "group"] == ["0", "0"]
    for fact in ("1.5", "step 42", "LEFTFIRE", "columns 2–3, rows 1–3", "-21"):
        assert f"<dd>{fact}</dd>" in text
    assert "left:33.33%;top:20%;width:33.33%;height:60%" in text


def test_pictures_show_the_last_three_screens() -> None:
    state = np.arange(4, dtype=np.uint8)[:, None, None] * 10 + np.zeros((4, 5, 6), np.uint8)
    pixels = np.zeros((4, 5, 6), np.float32)
    pixels[0, 0, 0] = 100  # the oldest screen is not shown, and does not count
    pixels[1, 1, 2], pixels[2, 3, 4], pixels[3, 3, 4] = -0.5, 0.25, 0.125
    guided, seen = pictures(make_page(state, pixels))
    assert (seen == [10, 20, 30]).all()
    assert guided[1, 2].tolist() == [1, 128, 128]
    assert guided[3, 4].tolist() == [128, 192, 160]
    assert guided[0, 0].tolist() == [128, 128, 128]


@pytest.mark.parametrize(("history", "colours"), [(1, [7, 7, 7]), (2, [7, 7, 8]), (3, [7, 8, 9])])
def test_short_histories(history: int, colours: list[int]) -> None:
    state = np.arange(7, 7 + history, dtype=np.uint8)[:, None, None] + np.zeros((history, 5, 6), np.uint8)
    guided, seen = pictures(make_page(state, np.full(state.shape, np.nan, np.float32)))
    assert (seen == colours).all()
    assert (guided == 128).all()


def test_scores_on_the_page_are_exact() -> None:
    text = page(Header("pong", "none", [1234567.0, -37037.0367], 0.1 + 0.2), [], "")
    assert "1234567, -37037.0367, 0.3 when it was interrupted" in text
