"""Several watchers of the same games."""

from __future__ import annotations

from fakes import Abandons, FakeEnvironment
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
