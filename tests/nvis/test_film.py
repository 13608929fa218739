"""The film on the filter page: its moments, their explanations, and the pictures."""

from __future__ import annotations

import base64
import io
import json
import re
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from test_page import Page, film_html, film_scenes

from fakes import conv, linear, random_states
from nvis.film import Film, Moment, _unpacked, explain, film_section, packed
from simple_dqn.learning.guided import guided_q_value, read_network, saliency

NO_Q = np.zeros(3)


def film_data(text: str) -> dict[str, Any]:
    (found,) = re.findall('<script type="application/json" id="moments">(.*)</script>', text)
    return dict(json.loads(found))


def moments_of(text: str) -> Any:
    return film_data(text)["moments"]


def video_of(text: str) -> list[NDArray[np.uint8]]:
    """The pictures of the video, (height, width, 3)."""
    with av.open(io.BytesIO(base64.b64decode(film_data(text)["video"]))) as container:
        assert container.streams.video[0].average_rate == film_data(text)["rate"]
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize(
    ("steps", "every", "kept"), [(1, 1, 1), (3000, 1, 3000), (3001, 2, 1501), (6000, 2, 3000), (6001, 4, 1501)]
)
def test_film_keeps_whole_stretches_at_equal_distances(steps: int, every: int, kept: int) -> None:
    """A film of single moments would not play at the speed of the game."""
    film, state = Film(), np.zeros((1, 2, 2), np.uint8)
    for i in range(steps):
        film.add(Moment(1, i, 0.0, 0, NO_Q, state, b""))
    assert [m.step for m in film.moments] == [i for i in range(steps) if i // 150 % every == 0]
    assert (film.every, film.stretch, len(film.moments)) == (every, 150, kept)


def test_film_of_large_screens_keeps_fewer() -> None:
    film, state = Film(), np.zeros((4, 1500, 1500), np.uint8)
    for i in range(100):
        film.add(Moment(1, i + 1, 0.0, 0, NO_Q, state, b""))
    assert 10 <= len(film.moments) <= 20


def test_film_says_what_it_leaves_out() -> None:
    assert "Every step, 25 in 1.7 seconds: 15 steps a second, as the game is played." in film_html(film_scenes(25))
    film = Film()
    film.every, film.stretch = 4, 150
    text = film_section(film_scenes(40), ["NOOP", "FIRE"], film, steps_per_second=20, pixel_width=1)
    assert "1/4 of the game: 150 steps in a row, then a cut of 450 steps, and so on, 40 steps in 2 seconds." in text


def test_scenes_explain_the_action_taken() -> None:
    """One and a half chunks of moments give the same as each moment alone."""
    rng = np.random.default_rng(8)
    network = read_network([conv(rng.normal(size=(2, 2, 4, 3)), 3), linear(rng.normal(size=(3, 2 * 5 * 6)))])
    found = explain(network, [Moment(1, i, 0.0, i % 3, NO_Q, random_states(rng, 2, 17, 18), b"") for i in range(7)])
    assert explain(network, []) == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nvis.film._CHUNK", 4 * 2 * 17 * 18)
        again = explain(network, [scene.moment for scene in found])
    for scene, same in zip(found, again, strict=True):
        guided = guided_q_value(network, scene.moment.state[None], np.array([scene.moment.action]))
        for one in (scene, same):
            np.testing.assert_allclose(one.saliency, 255 * saliency(guided.pixels)[0], atol=0.6)


def test_scores_are_exact() -> None:
    (scene,) = film_scenes(1)
    exact = scene._replace(moment=scene.moment._replace(score=1234567.25))
    assert moments_of(film_html([exact]))[0][2] == 1234567.25


def test_the_best_action_is_that_of_the_exact_q_values() -> None:
    """The page shows four digits of them, in which two may be equal."""
    (scene,) = film_scenes(1, q=(1.00001, 1.00002))
    assert moments_of(film_html([scene]))[0][4:] == [1, [1, 1]]


def test_film_has_every_picture_in_its_colours_and_its_saliency() -> None:
    text = film_html(film_scenes(25, (84, 84), (210, 160)), ["NOOP", "</script>"])
    Page(text)
    data = film_data(text)
    assert data["actions"] == ["NOOP", "</script>"]
    assert data["moments"][2] == [1, 9, -2, 0, 0, [0.5, -1.25]]
    assert len(data["moments"]) == len(video_of(text)) == 25
    assert 'max="24"' in text
    assert "--shape:560/420" in text
    assert data["layout"] == [320, 420, 84, 84, 404, 420]
    for i, picture in enumerate(video_of(text)):
        assert picture.shape == (420, 404, 3)
        assert abs(picture[:410, :310].mean(axis=(0, 1)) - [0, 10 * i, 0]).max() < 8
        salient = picture[10:74, 326:356].mean(), picture[10:74, 370:400].mean()
        assert abs(np.array(salient) - [255 * (i % 2), 0]).max() < 16


def test_bars_of_all_moments_have_one_scale() -> None:
    scenes = [*film_scenes(1, q=(1, 1.01)), *film_scenes(1, q=(3, 2)), *film_scenes(1, q=(-1, np.nan))]
    text = film_html(scenes)
    assert film_data(text)["scale"] == [-1, 3]
    assert "All bars start at 0 and\nhave one scale for the whole film: −1 to 3." in text
    assert '<span>−1</span><span class="zero">0</span><span>3</span>' in text
    assert "--zero:25.00%" in text
    assert film_data(film_html(film_scenes(1, q=(2, 3))))["scale"] == [0, 3]


@pytest.mark.parametrize(
    ("picture", "shape", "size"), [((400, 600), (300, 200), (280, 420)), ((7, 9), (5, 5), (14, 18))]
)
def test_film_of_other_sizes(picture: tuple[int, int], shape: tuple[int, int], size: tuple[int, int]) -> None:
    text = film_html(film_scenes(2, shape, picture))
    height, width = size
    assert film_data(text)["layout"][:2] == [width, height]
    for i, shown in enumerate(video_of(text)):
        assert shown.shape == (*film_data(text)["layout"][5:3:-1], 3)
        assert abs(shown[:height, :width].mean(axis=(0, 1)) - [0, 10 * i, 0]).max() < 8


def test_packed_pictures_are_without_loss() -> None:
    picture = random_states(np.random.default_rng(0), 210, 160, 3)
    np.testing.assert_array_equal(_unpacked(packed(picture)), picture)


def test_film_of_a_network_that_diverged() -> None:
    text = film_html(film_scenes(2, q=(np.nan, np.inf)))
    assert moments_of(text)[0][4:] == [-1, [None, None]]
    assert "<svg" not in text
    assert film_html([]) == ""
