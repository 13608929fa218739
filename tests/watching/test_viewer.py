"""What the keys do, and what the viewer shows of the agent."""

from __future__ import annotations

from collections.abc import Sequence
from unittest.mock import Mock

import numpy as np
import pytest

from fakes import PONG, SEAQUEST, FakeEnvironment, FakeNetwork, make_agent, step
from simple_dqn.agent import Agent, Step
from simple_dqn.deepqnetwork import BackendOptions, DeepQNetwork, DeepQNetworkOptions
from simple_dqn.environment import Sound
from simple_dqn.reports.scores import Scores
from simple_dqn.saving.snapshot import Layer
from simple_dqn.watching.display import HELP, ORANGE, Scene
from simple_dqn.watching.insight import Explain, Saliency, overlaid
from simple_dqn.watching.joystick import joystick
from simple_dqn.watching.viewer import Viewer


class Loud(FakeEnvironment):
    """Has a sound: 128 + 100."""

    lives = 3

    def __init__(self) -> None:
        super().__init__()
        self.names = ["NOOP", "RIGHT", "LEFT"]

    def sound(self) -> Sound:
        return np.full(8, 228, np.uint8)


class FakeDisplay:
    """A display, its viewer and a clock that only `sleep` moves.

    `script` has the keys that each call of `pressed` returns.
    """

    def __init__(self, script: dict[int, str | list[str]] | None = None, env: FakeEnvironment | None = None) -> None:
        self.script = script or {}
        self.looks = 0
        self.typed: Sequence[str] = ()  # returned at the next call of `pressed`
        self.scenes: list[Scene] = []
        self.sounds: list[Sound] = []
        self.down: set[str] = set()
        self.unused_keys: set[str] = set()
        self.room = 99  # lines of help
        self.fullscreen = self.closed = 0
        self.now = 0.0
        self.env = env or Loud()
        self.scores = Scores()
        self.viewer = Viewer(self, self.scores, clock=lambda: self.now, sleep=self.sleep)
        self.viewer.meet(self.env)

    def attach(self, explain: Explain | None = None) -> Agent:
        agent = make_agent([Loud()])
        agent.games.begin("test", new_episode=True)
        self.viewer.attach(agent, explain)
        return agent

    def show(self, *typed: str, frames: int = 1) -> Scene:
        """Press keys, then show frames. Return the last scene."""
        self.typed = typed
        for _ in range(frames):
            self.viewer.on_frame(self.env)
        return self.scenes[-1]

    def step(self, *steps: Step) -> None:
        for played in steps:
            self.scores.on_step(played)
            self.viewer.on_step(played)

    def status(self, *typed: str) -> str:
        return " · ".join(self.show(*typed).status)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def draw(self, scene: Scene) -> None:
        self.scenes.append(scene)

    def play(self, sound: Sound, frames_per_second: float) -> None:
        self.sounds.append(sound)

    def pressed(self) -> list[str]:
        self.looks += 1
        typed, self.typed = self.typed, ()
        return [*typed, *self.script.get(self.looks, [])]

    def held(self) -> set[str]:
        return self.down

    def help_page_length(self, help: Sequence[tuple[str, str]]) -> int:
        return min(self.room, len(help))

    def toggle_fullscreen(self) -> None:
        self.fullscreen += 1

    def close(self) -> None:
        self.closed += 1


# Keys


@pytest.mark.parametrize(
    ("names", "held", "action"),
    [
        (PONG, {"right"}, "RIGHT"),
        (PONG, {"up"}, "RIGHT"),
        (PONG, {"down", "space"}, "LEFTFIRE"),
        (PONG, {"left", "right"}, "NOOP"),
        (PONG, {"left", "up"}, "LEFT"),
        (PONG, {"space"}, "FIRE"),
        (PONG, set(), "NOOP"),
        (PONG, {"4"}, "RIGHTFIRE"),
        (PONG, {"9"}, "NOOP"),
        (PONG, {"²"}, "NOOP"),
        (SEAQUEST, {"up"}, "UP"),
        (SEAQUEST, {"up", "right", "space"}, "UPRIGHTFIRE"),
        (SEAQUEST, {"down", "space"}, "DOWNFIRE"),
        (SEAQUEST, {"down", "left"}, "LEFT"),
        (["NOOP", "RIGHT", "LEFT"], {"right", "space"}, "RIGHT"),
    ],
)
def test_joystick(names: list[str], held: set[str], action: str) -> None:
    assert joystick(held, names) == names.index(action)


def test_a_human_takes_over_and_gives_back() -> None:
    display = FakeDisplay()
    steer = display.viewer.steer
    assert steer(1) == 1
    display.down = {"right"}
    assert display.status("m", "left").startswith("YOU · score 0 · lives 3")
    assert steer(0) == 0  # left and right at once are neither
    assert steer(0) == 1  # right is still held
    display.down = set()
    assert steer(1) == 0
    assert display.status("m").startswith("agent · ")
    assert steer(1) == 1


def test_speed() -> None:
    display = FakeDisplay()
    display.show()
    for typed, shown, frames in (("", "1x", 60), ("a", "1/2x", 120), ("ss", "2x", 30), ("s" * 20, "max", 0)):
        start = display.now
        assert f"speed {shown}" in display.show(*typed, frames=60).status
        assert (display.now - start) * 60 == pytest.approx(frames, abs=0.5)


def test_a_slow_machine_skips_long_delays() -> None:
    display = FakeDisplay()
    display.show()
    display.now += 5
    start = display.now
    display.show(frames=61)
    assert display.now - start == pytest.approx(1, abs=0.01)


def test_every_frame_is_shown_at_the_natural_speed_with_its_sound() -> None:
    display = FakeDisplay()
    for frame, typed in enumerate(("", "[[[[[", "[[[[[[[", "]", "a"), 1):  # silent at volume 0, and when slow
        display.env.frame = frame
        display.show(*typed)
    assert [int(scene.picture[0, 0, 0]) for scene in display.scenes] == [1, 2, 3, 4, 5, 5]  # at a key, and as a frame
    assert [int(sound[0]) for sound in display.sounds] == [228, 178, 138]


def test_pause_step_and_go_on() -> None:
    display = FakeDisplay({2: "p", 40: "n", 80: "p"})
    looks = []
    for _ in range(4):
        display.viewer.steer(0)
        display.show(frames=2)
        looks.append(display.looks)
    assert looks[0] == 40  # paused in the first step until n
    assert looks[1] >= 80  # which plays this one step, and stops before the next until p
    assert looks[3] - looks[1] < 10
    assert any("PAUSED" in scene.status for scene in display.scenes)
    assert "PAUSED" not in display.scenes[-1].status


def test_restart_fullscreen_and_close() -> None:
    display = FakeDisplay()
    display.show("r", "f")
    assert [display.viewer.wants_restart(), display.viewer.wants_restart()] == [True, False]
    display.viewer.close()
    assert (display.fullscreen, display.closed) == (1, 1)


@pytest.mark.parametrize(("key", "quit"), [("q", True), ("escape", True), ("hangup", False)])
def test_a_hang_up_interrupts_the_run_without_the_user_having_quit(key: str, quit: bool) -> None:
    display = FakeDisplay()
    agent = display.attach()
    display.show(key)
    assert (display.viewer.quit, agent.interrupted) == (quit, True)


def test_a_pause_ends_with_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    display = FakeDisplay()
    agent = display.attach()

    def interrupt(seconds: float) -> None:
        display.now += seconds
        agent.interrupted = display.now > 1

    monkeypatch.setattr(display.viewer, "_sleep", interrupt)
    display.show("p")
    assert display.now < 1.1


def test_status() -> None:
    display = FakeDisplay()
    assert display.status() == "agent · score 0 · lives 3 · speed 1x · h: help  q: quit"
    display.step(step(1234567), step(5, game=1), step(0.5))
    assert display.status() == "agent · score 1234567.5 · lives 3 · speed 1x · ε 0.50 · h: help  q: quit"
    display.step(step(1, truncated=True))
    assert "score 0 · " in display.status()


def test_help_has_as_many_pages_as_it_needs() -> None:
    display = FakeDisplay()
    display.room = 5
    display.viewer.on_phase_start("play", 0, None)
    scenes = [display.show("h") for _ in range(4)]
    assert [line for scene in scenes for line in scene.help[:5]] == list(HELP)
    assert [scene.status[-1].split()[1] for scene in scenes] == ["more", "more", "close", "help"]


def test_keys_that_do_nothing_are_not_offered_and_do_nothing() -> None:
    mute = FakeEnvironment()
    mute.names = ["0", "1", "2"]
    for env, missing in ((Loud(), {"f"}), (mute, {"f", "[, ]", "arrows, space"})):
        display = FakeDisplay(env=env)
        display.unused_keys = {"f"}
        display.viewer.on_phase_start("play", 0, None)
        offered = {keys for keys, _ in display.show("f", "[", "h").help}
        assert {keys for keys, _ in HELP} - offered == missing
        assert ("volume 9" in display.status()) == ("[, ]" in offered)
        assert display.fullscreen == 0


# The agent's decision


def test_decision() -> None:
    display = FakeDisplay()
    display.attach(lambda state, action: np.ones(state.shape[1:]))
    display.env.frame = 200
    display.show("v")
    display.viewer.steer(1)
    scene = display.show()
    assert scene.decision
    names, q_values, action, state, scale, values = scene.decision
    assert (names, q_values.tolist(), action, state.shape) == (["NOOP", "RIGHT", "LEFT"], [0, 1, 2], 1, (2, 4, 5))
    assert (scale, values) == ((0, 2), (2,))
    assert scene.picture[0, 0].tolist() == [255, 255, 200]  # all of it counts
    scene = display.show("v")
    assert (scene.decision, scene.picture[0, 0].tolist()) == (None, [200, 200, 200])


def test_scale_of_the_bars_is_that_of_all_q_values_since_v() -> None:
    """A scale for each state would exaggerate small differences."""
    display = FakeDisplay()
    network = Mock()
    display.attach().network = network
    display.show("v")
    scales = []
    for q_values, keys in (([-1, 4], ""), ([1, 1.01], ""), ([2, np.nan], ""), ([1, 1.01], "vv")):
        network.predict.return_value = np.array([q_values])
        display.show(*keys)
        display.viewer.steer(1)
        decision = display.show().decision
        assert decision
        scales.append(decision.scale)
    assert scales == [(-1, 4), (-1, 4), (-1, 4), (0, 1.01)]


def test_decision_is_shown_at_once_during_a_pause() -> None:
    display = FakeDisplay({3: "p", 20: "v", 40: "p"})
    display.attach()
    display.show()
    display.viewer.steer(2)
    display.show(frames=3)
    paused = [scene for scene in display.scenes if "PAUSED" in scene.status]
    assert [scene.decision and scene.decision.action for scene in (paused[0], paused[-1])] == [None, 2]


def test_saliency_is_that_of_the_chosen_action_and_of_the_current_network() -> None:
    networks = [
        DeepQNetwork(3, (4, 84, 84), DeepQNetworkOptions(), BackendOptions(backend="cpu"), seed) for seed in (1, 2)
    ]
    version = [0]
    explain = Saliency(lambda: networks[version[0]].layers(), lambda: version[0])
    state = np.random.default_rng(0).integers(256, size=(4, 84, 84), dtype=np.uint8)
    heats = []
    for version[0], action in ((0, 0), (0, 1), (1, 0)):
        heats.append(explain(state, action))
        assert (heats[-1].shape, heats[-1].max()) == ((84, 84), 1)
        assert heats[-1].min() >= 0
    assert not np.array_equal(heats[0], heats[1])
    assert not np.array_equal(heats[0], heats[2])


def test_a_layer_that_saliency_cannot_explain_is_named_in_the_log_and_the_game_continues(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    display = FakeDisplay()
    noisy = Layer("Noisy", {}, {"W": np.zeros((3, 4)), "sigma": np.zeros((3, 4))}, [])
    display.attach(Saliency(lambda: [noisy], lambda: 0))
    scenes = []
    for typed in ("v", "", "v"):
        scenes.append(display.show(*typed))
        display.viewer.steer(1)
    note = "no saliency for this network (see the log)"
    assert [note in scene.status for scene in scenes] == [False, True, False]
    assert scenes[1].decision
    assert caplog.text.count("cannot explain a Noisy with W, sigma") == 1


def test_what_counted_is_brighter_and_orange_and_hides_nothing() -> None:
    mixed = overlaid(np.full((4, 6, 3), 100, np.uint8), np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert mixed[0, 0].tolist() == [255, 100 + int(0.75 * ORANGE[1]), 100]
    assert mixed[-1, -1].tolist() == [50, 50, 50]


# The card after a game


def play_a_game(display: FakeDisplay, *rewards: float) -> None:
    """Play a game of these rewards. The next game starts before its last step is counted, as in `Game.act`."""
    for reward in rewards[:-1]:
        display.viewer.steer(1)
        display.show()
        display.step(step(reward))
    display.viewer.steer(1)
    display.show()
    display.viewer.on_game()
    display.viewer.on_frame(display.env)  # the next game's no-ops
    display.step(step(rewards[-1], terminal=True))


def last_card(display: FakeDisplay) -> tuple[dict[str, str], dict[str, str]]:
    """The scores and the lines of the last card."""
    shown = display.scenes[-1].card
    assert shown
    return dict(shown.scores), dict(shown.lines)


def test_a_card_after_each_game_waits_for_r_or_some_seconds() -> None:
    display = FakeDisplay()
    display.viewer.on_phase_start("play", 0, None)
    display.viewer.on_game()
    play_a_game(display, 1, 2, 3)
    lines = {"steps": "3", "best so far": "6", "r": "next game (in 5 s)", "q": "quit"}
    assert last_card(display) == ({"agent's score": "6"}, lines)
    assert display.now == pytest.approx(5, abs=0.2)
    display.script = {display.looks + 8: "r"}
    play_a_game(display, 1, 1)
    assert display.now < 5.4
    assert last_card(display)[1]["best so far"] == "6"
    assert display.scenes[-1].status[0] == "GAME OVER"
    assert "lives" not in " ".join(display.scenes[-1].status)  # because they are the next game's
    assert not display.show().card
    assert not display.viewer.wants_restart()


@pytest.mark.parametrize(("key", "again"), [("r", True), ("q", False), ("escape", False), ("hangup", False)])
def test_the_card_of_the_last_game_stays_until_a_key(key: str, again: bool) -> None:
    display = FakeDisplay()
    display.attach()
    display.show()
    display.step(step(2), step(1, terminal=True))
    display.script = {100: [key]}
    assert display.viewer.wants_another_game() == again
    assert (display.looks, last_card(display)[1]["r"]) == (100, "play again")


def test_the_card_shows_the_picture_of_its_game() -> None:
    display = FakeDisplay()
    display.viewer.on_phase_start("play", 0, None)
    display.env.frame = 7
    display.show()
    display.step(step(1))
    display.viewer.on_game()
    display.env.frame = 0
    display.viewer.on_frame(display.env)
    display.step(step(1, terminal=True))
    assert display.scenes[-1].picture[0, 0, 0] == 7


def test_whoever_takes_over_has_a_score_of_their_own() -> None:
    display = FakeDisplay()
    display.viewer.on_phase_start("play", 0, None)
    play_a_game(display, 1, 1)
    assert "your moves" not in last_card(display)[1]
    display.show("m")
    display.viewer.steer(1)
    display.step(step(5))
    display.show("m")
    display.viewer.steer(1)
    display.step(step(2))
    assert {"score 7", "you 5 : agent 2"} <= set(display.show().status)
    play_a_game(display, 0, 0)
    points, lines = last_card(display)
    assert points == {"you": "5", "agent": "2"}
    assert (lines["together"], lines["your moves"], lines["best so far"]) == ("7", "25% (1)", "7 (this game)")


def test_a_game_of_your_own_counts_as_yours() -> None:
    display = FakeDisplay()
    display.viewer = Viewer(display, display.scores, manual=True, clock=lambda: display.now, sleep=display.sleep)
    display.viewer.meet(display.env)
    assert display.show().status[0] == "YOU"
    display.viewer.on_phase_start("play", 0, None)
    play_a_game(display, 1, 2)
    points, lines = last_card(display)
    assert (points, "your moves" in lines) == ({"your score": "3"}, False)


def test_help_can_be_read_over_a_card_and_keys_without_effect_there_change_nothing() -> None:
    display = FakeDisplay()
    display.attach()
    play_a_game(display, 2, 1)
    display.show("h")  # a game that ends while help is open shows its card nevertheless
    display.script = {display.looks + 10: "h", display.looks + 20: "h", display.looks + 30: "pbn", 100: "r"}
    before = len(display.scenes)
    assert display.viewer.wants_another_game()
    scenes = display.scenes[before:]
    helps = [bool(scene.help) for scene in scenes]
    assert (helps[0], True in helps, helps[-1]) == (False, True, False)
    offered = {keys for scene in scenes for keys, _ in scene.help}
    assert not {"p", "n", "b"} & {*offered}
    assert "PAUSED" not in display.show().status


def test_no_card_while_training() -> None:
    display = FakeDisplay()
    display.viewer.on_phase_start("train", 1, 100)
    play_a_game(display, 1, 2)
    assert not any(scene.card for scene in display.scenes)


# Lecture mode


@pytest.mark.parametrize("ended", [True, False])
def test_nothing_of_the_last_game_is_explained_in_the_next(ended: bool) -> None:
    """Until its first step, because before that the agent has decided nothing."""
    display = FakeDisplay()
    display.attach(lambda state, action: np.ones(state.shape[1:]))
    display.viewer.on_phase_start("play", 0, None)
    display.env.frame = 200
    display.show("v")
    display.viewer.steer(1)
    assert display.show().picture[0, 0].tolist() == [255, 255, 200]
    if ended:
        play_a_game(display, 1, 1)
    else:
        display.viewer.on_game()
    scene = display.show()
    assert scene.picture[0, 0].tolist() == [200, 200, 200]
    assert scene.decision  # because the window would get smaller and larger again
    assert not display.show("v").decision
    assert not display.show("v").decision
    display.viewer.steer(1)
    assert display.show().picture[0, 0].tolist() == [255, 255, 200]


def test_the_network_predicts_once_a_step() -> None:
    display = FakeDisplay()
    display.env.watchers = [display.viewer]
    network = Mock(wraps=FakeNetwork())
    agent = make_agent([display.env], network, exploration_rate_test=0)
    display.viewer.attach(agent)
    display.show("v")
    agent.test(3)
    assert display.show().decision
    assert network.predict.call_count == 3


def play_steps(display: FakeDisplay, steps: int) -> None:
    """Play steps. Frame n, with a picture of n, belongs to step n."""
    for frame in range(steps):
        display.env.frame = frame + 1
        display.show()
        display.viewer.steer(1)


def test_the_last_steps_can_be_looked_at_again_and_the_game_goes_on_from_where_it_was() -> None:
    display = FakeDisplay()
    display.attach()
    play_steps(display, 4)
    before, looks, display.env.frame = len(display.scenes), display.looks, 5
    display.script = {looks + 1: "bbb", looks + 5: "n", looks + 9: "n", looks + 13: "n", looks + 17: "n"}
    display.show()
    shown: list[tuple[object, ...]] = []
    for scene in display.scenes[before:]:
        view = int(scene.picture[0, 0, 0]), *(part for part in scene.status if part.endswith("back"))
        shown += [view] if view not in shown[-1:] else []
    assert shown == [(1, "3 steps back"), (2, "2 steps back"), (3, "1 step back"), (5,)]
    assert display.looks == looks + 17  # the last n plays on


def test_looking_back_further_than_the_timeline_shows_none_of_later_steps() -> None:
    display = FakeDisplay()
    display.attach()
    display.show("v")
    for _ in range(2):
        display.viewer.steer(1)
    insight = display.viewer._insight
    assert insight
    state, q_values = np.zeros((4, 84, 84), np.uint8), np.array([1.0, 2.0])
    for steps_back, expected in ((0, 3), (1, 2), (3, 0), (4, 0)):
        assert len(insight.think(state, 1, q_values, steps_back).decision.values) == expected


def test_a_restarted_game_is_forgotten() -> None:
    display = FakeDisplay()
    display.attach()
    display.viewer.on_phase_start("play", 0, None)
    for display.env.frame in range(5):
        display.show()
        display.viewer.steer(1)
        display.step(step(1))
    display.viewer.on_restart()
    display.viewer.on_game()
    display.env.frame = 77
    assert int(display.show().picture[0, 0, 0]) == 77
    assert not any("back" in part for part in display.show("p", "b", "p").status)


def test_looking_back_ends_at_the_first_step_of_the_game_and_with_p() -> None:
    display = FakeDisplay()
    display.attach()
    display.script = {4: "v", 6: "b" * 20, 10: "p"}
    play_steps(display, 5)
    past = [scene for scene in display.scenes if any("back" in part for part in scene.status)]
    assert int(past[-1].picture[0, 0, 0]) == 1
    assert past[-1].decision
    assert past[-1].decision.values == ()  # these steps are older than v
    assert not display.viewer._history.steps_back
    display.viewer.on_game()
    display.script = {display.looks + 1: "b", display.looks + 3: "p"}
    assert not any("back" in part for part in display.show().status)


def test_a_random_move_is_marked() -> None:
    display = FakeDisplay()
    display.attach()
    display.show("v")
    found = []
    for action in (1, 2):  # the network likes 2 best
        display.viewer.steer(action)
        decision = display.show().decision
        assert decision
        found.append((decision.random, decision.values))
    assert found == [(True, (2,)), (False, (2, 2))]


def test_keys_for_more_and_fewer_random_moves_in_games_that_are_played() -> None:
    display = FakeDisplay()
    agent = display.attach()
    display.show("+")
    assert agent.options.exploration_rate_test == 0.05  # because a test is a measurement
    display.viewer.on_phase_start("play", 0, None)
    rates = []
    for key in ("+", "=", "-", "-", "-", "-", "-"):
        status = display.show(key).status
        rates.append(agent.options.exploration_rate_test)
        assert f"ε {rates[-1]:.2f}" in status
    assert rates == [0.1, 0.2, 0.1, 0.05, 0.01, 0, 0]
