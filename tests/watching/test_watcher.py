"""Several watchers of the same games."""

from __future__ import annotations

from fakes import Abandons, Eye, FakeEnvironment
from simple_dqn.watching.watcher import WatcherGroup


def test_a_watcher_group_stops_after_its_last_game_and_abandoned_games_do_not_count() -> None:
    eye = Abandons(2)
    group = WatcherGroup([eye], max_games=2)
    seen = []
    for abandoned in (False, True, False, False):
        group.on_game()
        group.on_frame(FakeEnvironment())
        seen.append(len(eye.pictures))
        assert group.wants_restart() == abandoned
    assert seen == [1, 2, 3, 3]


def test_a_game_that_the_viewer_abandons_does_not_count_for_the_recorders() -> None:
    recorder = Eye()
    both = WatcherGroup([WatcherGroup([recorder], max_games=1), Abandons(1)], max_games=0)
    for _ in range(3):
        both.on_game()
        both.on_frame(FakeEnvironment())
        both.wants_restart()
    assert (recorder.games, len(recorder.pictures)) == (2, 2)  # the abandoned game and one more


def test_after_the_last_game_watchers_do_not_steer() -> None:
    eye = Eye()
    group = WatcherGroup([eye], max_games=1)
    for _ in range(2):
        group.on_game()
        group.steer(0)
    assert eye.steered == 1


def test_after_the_last_game_one_watcher_may_go_on() -> None:
    recorder, viewer = Eye(), Eye()
    group = WatcherGroup([recorder, viewer], max_games=1)
    for _ in range(2):  # the second one is the game that an environment starts after the last
        group.on_game()
        group.on_frame(FakeEnvironment())
    group.continue_with(viewer)
    for _ in range(2):
        group.on_game()
        group.on_frame(FakeEnvironment())
    assert (recorder.games, viewer.games, len(recorder.pictures), len(viewer.pictures)) == (1, 2, 1, 2)
