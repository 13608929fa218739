"""The film on the filter page: its moments, their explanations, and the pictures."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from test_page import Page, film_scenes, pictures

from fakes import conv, linear, random_states
from nvis.film import Film, Moment, explain, film_section
from simple_dqn.learning.guided import guided_q_value, read_network, saliency


def film_data(text: str) -> dict[str, Any]:
    (found,) = re.findall('<script type="application/json" id="moments">(.*)</script>', text)
    return dict(json.loads(found))


@pytest.mark.parametrize(("steps", "every", "kept"), [(1, 1, 1), (300, 1, 300), (301, 2, 151), (5000, 32, 157)])
def test_film_keeps_moments_at_equal_distances(steps: int, every: int, kept: int) -> None:
    film, state = Film(), np.zeros((1, 2, 2), np.uint8)
    for i in range(steps):
        film.add(Moment(1, i + 1, 0.0, 0, state))
    assert [m.step for m in film.moments] == list(range(1, steps + 1, every))
    assert (film.every, len(film.moments)) == (every, kept)


def test_film_of_large_screens_keeps_fewer() -> None:
    film, state = Film(), np.zeros((4, 1500, 1500), np.uint8)
    for i in range(100):
        film.add(Moment(1, i + 1, 0.0, 0, state))
    assert 3 <= len(film.moments) <= 7


def test_scenes_explain_the_action_taken() -> None:
    """One and a half chunks of moments give the same as each moment alone."""
    rng = np.random.default_rng(8)
    network = read_network([conv(rng.normal(size=(2, 2, 4, 3)), 3), linear(rng.normal(size=(3, 2 * 5 * 6)))])
    found = explain(network, [Moment(1, i, 0.0, i % 3, random_states(rng, 2, 17, 18)) for i in range(7)])
    assert explain(network, []) == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nvis.film._CHUNK", 4 * 2 * 17 * 18)
        again = explain(network, [scene.moment for scene in found])
    for scene, same in zip(found, again, strict=True):
        guided = guided_q_value(network, scene.moment.state[None], np.array([scene.moment.action]))
        for one in (scene, same):
            np.testing.assert_allclose(one.q_values, guided.q_values[0], rtol=1e-5)
            np.testing.assert_allclose(one.saliency, saliency(guided.pixels)[0], atol=1e-5)


def test_scores_are_exact() -> None:
    (scene,) = film_scenes(1)
    exact = scene._replace(moment=scene.moment._replace(score=1234567.25))
    assert film_data(film_section([exact], 1, ["NOOP", "FIRE"]))["moments"][0][2] == 1234567.25


def test_film_has_every_screen_and_its_saliency() -> None:
    text = film_section(film_scenes(25), 4, ["NOOP", "</script>"])
    Page(text)
    data = film_data(text)
    assert data["actions"] == ["NOOP", "</script>"]
    assert data["moments"][2] == [1, 9, -2, 0, [0.5, -1.25]]
    assert len(data["moments"]) == 25
    assert 'max="24"' in text
    assert "Every 4th step" in text
    screens, heat = (sheet[..., 0] for sheet in pictures(text, "webp"))
    assert screens.shape == heat.shape == (2 * 5, 20 * 6)
    for i in range(25):
        row, column = i // 20 * 5, i % 20 * 6
        assert (screens[row : row + 5, column : column + 6] == 10 * i % 256).all()
        tile = heat[row : row + 5, column : column + 6]
        assert tile[i % 5, i % 6] == tile.max() > 128


def test_film_of_large_screens_is_shrunk() -> None:
    text = film_section(film_scenes(3, 210, 160), 1, ["NOOP", "FIRE"])
    assert "--shape:160/210" in text
    assert (film_data(text)["width"], film_data(text)["height"]) == (128, 168)
    assert [sheet.shape[:2] for sheet in pictures(text, "webp")] == [(168, 20 * 128)] * 2


def test_film_of_a_network_that_diverged() -> None:
    text = film_section(film_scenes(2, q=(np.nan, np.inf)), 1, ["NOOP", "FIRE"])
    assert film_data(text)["moments"][0][4] == [None, None]
    assert "<svg" not in text
    assert film_section([], 1, ["NOOP"]) == ""
