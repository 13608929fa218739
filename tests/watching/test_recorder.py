"""Recordings, read back: every frame, every sample. Earlier files are safe until the recording is complete."""

from __future__ import annotations

import os
import subprocess
import sys
import wave
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import av
import cv2
import numpy as np
import pytest

from fakes import Eye, FakeEnvironment, make_agent, step
from runs import ROOT
from simple_dqn.environment import EnvironmentOptions
from simple_dqn.errors import OptionError, OutputError
from simple_dqn.games.game import make_environment
from simple_dqn.watching.display import enlarged
from simple_dqn.watching.film import Film
from simple_dqn.watching.film_editor import BestFrames, FilmEditor, Shot
from simple_dqn.watching.make import make_recorders
from simple_dqn.watching.recorder import RecorderOptions
from simple_dqn.watching.watcher import WatcherGroup


def record(steps: int = 10, finish: bool = True, games: int = 1, **options: Any) -> Eye:
    """Play Pong at random. Return the pictures and sounds."""
    eye = Eye()
    recorder_options = RecorderOptions(**options)
    recorder = WatcherGroup(make_recorders(recorder_options), recorder_options.record_games)
    env = make_environment(EnvironmentOptions(game="pong"), 1, [eye, recorder])
    env.mode = "test"
    rng = np.random.default_rng(0)
    for _ in range(games):
        env.restart()
        recorder.steer(0)
        for action in rng.integers(env.num_actions, size=steps).tolist():
            env.act(action)
    if finish:
        recorder.finish()
    recorder.close()
    return eye


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_frames_are_the_emulators_with_wide_pixels_doubled(tmp_path: Path) -> None:
    eye = record(record_screen_path=str(tmp_path / "new" / "frames"))
    folder = tmp_path / "new" / "frames"
    assert names(folder) == [f"{n:06d}.png" for n in range(1, 42)]
    for name, picture in zip(names(folder), eye.pictures, strict=True):
        read = cv2.imread(str(folder / name))
        assert read is not None
        np.testing.assert_array_equal(read[..., ::-1], picture.repeat(2, axis=1))


def test_sound_of_every_frame(tmp_path: Path) -> None:
    eye = record(150, record_sound_filename=str(tmp_path / "new" / "pong.wav"))
    with wave.open(str(tmp_path / "new" / "pong.wav")) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (30720, 1, 1)
        samples = np.frombuffer(sound.readframes(sound.getnframes()), np.uint8)
    np.testing.assert_array_equal(samples, np.concatenate(eye.sounds))
    assert samples.max() - samples.min() > 20  # the ball was heard


@pytest.mark.parametrize("kind", ["mov", "mp4"])
def test_film(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"pong.{kind}"
    eye = record(30, video_file=str(path))
    with av.open(str(path)) as film:
        video, audio = film.streams.video[0], film.streams.audio[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (video.average_rate, video.width, video.height) == (60, 800, 630)
        assert video.codec_context.colorspace == 5  # BT.601, in which the pictures are stored
        seconds = Fraction(len(eye.pictures), 60)
        assert video.duration * video.time_base == pytest.approx(float(seconds), abs=1e-3)
        assert audio.codec_context.name == "aac"
        assert audio.duration * audio.time_base == pytest.approx(float(seconds), abs=1e-3)
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video)]
    assert len(frames) == len(eye.pictures)
    for frame, picture in zip(frames[::20], eye.pictures[::20], strict=True):
        assert np.abs(frame.astype(int) - enlarged(picture, 1.75, 3)).mean() < 6


def test_small_films_of_equal_films_are_equal_whatever_the_memory_held(tmp_path: Path) -> None:
    record(60, video_file=str(tmp_path / "pong.mp4"))
    code = "import sys, pathlib; from simple_dqn.watching.film import small_film; "
    code += "sys.stdout.buffer.write(small_film(pathlib.Path(sys.argv[1])))"
    found = []
    for garbage in ("0", "1"):  # GNU's allocator fills memory with it
        more = {"MALLOC_PERTURB_": garbage, "MALLOC_MMAP_THRESHOLD_": "1000000000", "PYTHONPATH": str(ROOT / "src")}
        command = [sys.executable, "-c", code, str(tmp_path / "pong.mp4")]
        found.append(subprocess.run(command, env=os.environ | more, capture_output=True, check=True).stdout)
    assert found[0] == found[1]
    assert len(found[0]) > 1000


def test_sound_of_a_film_is_in_time(tmp_path: Path) -> None:
    path = tmp_path / "pong.mov"
    eye = record(120, video_file=str(path))
    with av.open(str(path)) as film:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in film.decode(audio=0)])
    played = np.concatenate(eye.sounds).astype(float) - 128
    played = np.interp(np.arange(len(played) * 25 // 16) * 16 / 25, np.arange(len(played)), played)
    length = min(len(heard), len(played))
    spectrum = np.fft.rfft(played[:length] - played.mean(), 2 * length)
    overlap = np.fft.irfft(np.conj(spectrum) * np.fft.rfft(heard[:length] - heard.mean(), 2 * length))
    late = int(overlap.argmax())
    assert min(late, 2 * length - late) <= 0.03 * 48000  # seconds; AAC's own padding is 0.021


def test_gif_has_every_other_frame_in_its_own_colours(tmp_path: Path) -> None:
    path = tmp_path / "pong.gif"
    eye = record(15, video_file=str(path))
    with av.open(str(path)) as film:
        assert (film.streams.video[0].codec_context.name, len(film.streams.audio)) == ("gif", 0)
        decoded = list(film.decode(video=0))
    wanted = eye.pictures[::2]
    assert len(decoded) == len(wanted)
    assert float(decoded[-1].time or 0) == pytest.approx((len(wanted) - 1) / 30, abs=0.011)
    for frame, picture in zip(decoded, wanted, strict=True):
        pixels = picture.repeat(3, axis=0).repeat(5, axis=1)  # of the shape that they have in a film
        np.testing.assert_array_equal(frame.to_ndarray(format="rgb24"), pixels)


def test_an_interrupted_recording_keeps_earlier_files(tmp_path: Path) -> None:
    frames, sound, film = tmp_path / "frames", tmp_path / "a.wav", tmp_path / "a.mov"
    files: dict[str, Any] = dict(record_screen_path=str(frames), record_sound_filename=str(sound), video_file=str(film))
    record(20, **files)
    (frames / "mine.png").write_bytes(b"mine")

    def content() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    new: dict[str, Any] = {name: str(tmp_path / "new" / "below" / Path(path).name) for name, path in files.items()}
    record(5, finish=False, **new)
    assert not (tmp_path / "new").exists()
    before = content()
    record(5, finish=False, **files)
    assert content() == before
    record(5, **files)
    assert names(frames) == [*(f"{n:06d}.png" for n in range(1, 22)), "mine.png"]
    assert names(tmp_path) == ["a.mov", "a.wav", "frames"]
    assert content()[str(film)] != before[str(film)]


def test_other_pictures_in_the_folder_are_kept(tmp_path: Path) -> None:
    mine = ["000100.png", "20240115.png", "999999.png"]
    for name in mine:
        (tmp_path / name).write_bytes(b"mine")
    for frames in (8, 3):
        record(frames, record_screen_path=str(tmp_path))
    assert names(tmp_path) == [*(f"{n:06d}.png" for n in range(1, 14)), *mine]


def test_temporary_files_of_a_killed_recording_are_deleted(tmp_path: Path) -> None:
    old, young = [".a.mov.x1.tmp", ".recording.x1.tmp"], [".a.mov.x2.tmp", ".recording.x2.tmp"]
    for name in (*old, *young, ".b.mov.x1.tmp"):
        place = tmp_path / name
        place.mkdir() if "recording" in name else place.write_bytes(b"")
    for name in (*old, ".b.mov.x1.tmp"):
        os.utime(tmp_path / name, (0, 0))
    record(2, record_screen_path=str(tmp_path), video_file=str(tmp_path / "a.mov"))
    left = [name for name in names(tmp_path) if name.endswith(".tmp")]
    assert left == sorted([*young, ".b.mov.x1.tmp"])


def test_only_the_first_record_games_are_recorded(tmp_path: Path) -> None:
    record(5, games=3, record_games=2, record_screen_path=str(tmp_path / "two"))
    record(5, games=3, record_screen_path=str(tmp_path / "all"))
    assert (len(names(tmp_path / "two")), len(names(tmp_path / "all"))) == (42, 63)


@pytest.mark.parametrize(
    ("option", "name"),
    [("record_screen_path", "below"), ("record_sound_filename", "below.wav"), ("video_file", "below.mov")],
)
def test_recording_that_cannot_be_written(option: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    options: Callable[..., RecorderOptions] = RecorderOptions
    recorder_options = options(**{option: str(tmp_path / "file" / name)})
    with pytest.raises(OutputError, match="cannot write"):
        make_recorders(recorder_options)


def test_films_are_of_few_kinds_and_mute_games_have_no_sound_to_record(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"the name must end in \.mov, \.mp4 or \.gif"):
        make_recorders(RecorderOptions(video_file=str(tmp_path / "film.avi")))
    recorders = make_recorders(RecorderOptions(record_sound_filename=str(tmp_path / "a.wav")))
    with pytest.raises(OptionError, match="no sound to record"):
        make_environment(EnvironmentOptions(game="CartPole-v1", environment="gym"), 1, recorders)
    assert list(tmp_path.iterdir()) == []


def film(path: Path, env: FakeEnvironment, frames: int) -> list[av.VideoFrame]:
    """Film this many frames of a game without sound. Return the film's frames."""
    recorder = Film(path)
    for env.frame in range(frames):
        recorder.on_frame(env)
    recorder.finish()
    with av.open(str(path)) as read:
        assert len(read.streams.audio) == 0
        return list(read.decode(video=0))


def test_film_of_a_mute_game_of_an_odd_size(tmp_path: Path) -> None:
    frames = film(tmp_path / "fake.mp4", FakeEnvironment(), 7)  # 4x5 pixels
    assert [(frame.width, frame.height) for frame in frames] == [(786, 628)] * 7


@pytest.mark.parametrize("kind", ["gif", "mp4"])
@pytest.mark.parametrize("rate", [0.1, 0.5, 29.97, 1000.0])
def test_film_of_any_rate(rate: float, kind: str, tmp_path: Path) -> None:
    env = FakeEnvironment()
    env.frames_per_second = rate
    last = film(tmp_path / f"fake.{kind}", env, 40)[-1]
    assert float(last.time or 0) == pytest.approx((20 if (rate, kind) == (1000, "gif") else 39) / rate, rel=0.01)


@pytest.mark.parametrize("kind", ["gif", "mp4"])
def test_film_of_pictures_that_grow(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = FakeEnvironment()
    env.frames_per_second = 30
    pictures = [np.full((side, side, 3), side, np.uint8) for side in (20, 30, 10)]
    monkeypatch.setattr(env, "picture", lambda: pictures[env.frame])
    frames = [frame.to_ndarray(format="rgb24") for frame in film(tmp_path / f"fake.{kind}", env, 3)]
    assert len({frame.shape for frame in frames}) == 1
    assert [round(float(frame.mean()), -1) for frame in frames] == [20, 30, 10]


def test_a_gif_of_many_colours_rounds_them_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = FakeEnvironment()
    colours = np.random.default_rng(0).integers(256, size=(20, 30, 3), dtype=np.uint8)
    colours[:5] = np.arange(30, dtype=np.uint8)[:, None] * 8  # greys
    monkeypatch.setattr(env, "picture", lambda: colours)
    shown = film(tmp_path / "fake.gif", env, 3)[-1].to_ndarray(format="rgb24")
    difference = np.abs(shown.astype(int) - colours)
    assert difference.max() <= 26
    assert difference[:5].max() <= 4


# Which part of a game becomes a film


def shot(number: int) -> Shot:
    return Shot(10, 1.0, np.full((8, 8, 3), number, np.uint8), np.empty(0, np.uint8))


@pytest.mark.parametrize(
    ("points", "first"),
    [
        ({10: 1, 30: 1, 32: 1, 60: 1}, 25),  # the film goes on for 2 frames after the last of its points
        ({10: 1, 30: 3, 60: 2, 61: -9}, 23),
        ({3: 1}, 0),
        ({99: 1}, 90),  # at the end of the game
        ({}, 90),
        ({50: -1}, 90),
    ],
)
def test_the_best_frames_are_those_with_most_points(points: dict[int, float], first: int) -> None:
    best = BestFrames()
    for number in range(100):
        best.add(shot(number), length=10, tail=2)
        best.add_points(points.get(number, 0))
    assert [int(found.shown[0, 0, 0]) for found in best.frames()] == list(range(first, first + 10))
    assert list(best.frames()) == []


def test_the_last_point_of_a_game_counts_where_it_was_scored() -> None:
    """Frames of the next game's no-ops follow before the step is complete."""
    editor = FilmEditor(Mock(), RecorderOptions(video_file="a.gif", video_seconds=1.0))
    env = FakeEnvironment()
    env.frames_per_second = 10
    for _ in range(9):
        editor.steer(0)
        editor.on_frame(env)
    editor.on_game()
    for _ in range(5):
        editor.on_frame(env)
    editor.on_step(step(1, True))
    assert list(editor._best._points) == [(9, 1)]


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        (dict(), range(1, 41)),
        (dict(video_from=1.0), range(11, 41)),
        (dict(video_from=1.0, video_seconds=2.0), range(11, 31)),
        (dict(video_from=0.0, video_seconds=1.0), range(1, 11)),
        (dict(video_seconds=1.0), range(21, 31)),
        (dict(video_seconds=99.0), range(1, 41)),
    ],
)
def test_a_film_starts_with_the_first_action_and_may_be_a_part(
    options: dict[str, Any], numbers: range, tmp_path: Path
) -> None:
    path = tmp_path / "a.gif"
    editor = FilmEditor(Film(path), RecorderOptions(video_file=str(path), **options))
    env = FakeEnvironment()
    env.frames_per_second = 10
    for env.frame in range(41):  # of which 0 is a no-op's
        editor.on_frame(env)
        if env.frame:
            editor.steer(0)
            editor.on_step(step(reward=env.frame == 25))
    editor.on_step(step(reward=99))  # of a game that is not filmed any more
    editor.finish()
    with av.open(str(path)) as read:
        assert [int(frame.to_ndarray(format="rgb24")[0, 0, 0]) for frame in read.decode(video=0)] == list(numbers)


@pytest.mark.parametrize(
    ("begun", "words"), [(True, "second 5. Use a smaller --video_from"), (False, "the agent's first action")]
)
def test_a_game_that_ended_before_the_film_began_is_reported(
    begun: bool, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.gif"
    editor = FilmEditor(Film(path), RecorderOptions(video_file=str(path), video_from=5.0))
    for _ in range(9):
        editor.on_frame(FakeEnvironment())
        if begun:
            editor.steer(0)
    editor.finish()
    editor.finish()  # as after another game of the viewer
    assert caplog.messages == [f"There is no film: the game ended before {words}"]
    assert not path.exists()


def test_an_overlay_films_what_v_shows(tmp_path: Path) -> None:
    films = []
    for overlay in (False, True):
        path = tmp_path / "a.mp4"
        editor = FilmEditor(Film(path), RecorderOptions(video_file=str(path), overlay=overlay))
        env = FakeEnvironment()
        env.frame = 100
        agent = make_agent([env])
        agent.games.begin("test", new_episode=True)
        editor.attach(agent, lambda state, action: np.zeros(state.shape[1:]))
        for _ in range(3):
            editor.on_frame(env)
            editor.steer(2)
        editor.finish()
        with av.open(str(path)) as read:
            films.append([frame.to_ndarray(format="rgb24") for frame in read.decode(video=0)])
    (plain, *_), (shown, *_) = films
    height, width, _ = plain.shape
    assert shown.shape[0] > height
    assert shown.shape[1] > width
    assert abs(int(shown[height // 2, width // 2, 0]) - int(plain[0, 0, 0]) // 2) < 9  # without heat it is darker
    assert ((shown[:, width:, 0] > 200) & (shown[:, width:, 2] < 60)).any()  # the orange bar


@pytest.mark.parametrize("name", ["video_from", "video_seconds", "overlay"])
def test_options_of_films_need_a_film(name: str) -> None:
    options: Callable[..., RecorderOptions] = RecorderOptions
    with pytest.raises(OptionError, match=rf"--{name} is for films. Add --video_file"):
        options(**{name: 1})
