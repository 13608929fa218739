"""Recordings of a game: its frames as PNG, its sound as WAV, both as a film.

A recording grows in a hidden place beside its own, and takes that only when it is complete: what was recorded before is
safe until then.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import tempfile
import wave
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simple_dqn.environment import Environment, Picture
from simple_dqn.errors import OptionError, OutputError, reason
from simple_dqn.options import Options, option
from simple_dqn.saving.files import GrowingFile, clear_away, require_writable
from simple_dqn.watching.pixels import enlarged, least_height
from simple_dqn.watching.watcher import Watcher

logger = logging.getLogger(__name__)

_FILM_HEIGHT = 630  # pixels at most, unless the game has more: Atari's 210, three times
_FILM_SOUND = 48_000  # samples per second; every player takes these
# Of 18 a viewer sees no loss; the faster preset costs a few bytes, the slower ones more time than playing.
_X264 = {"preset": "veryfast", "crf": "18"}
_GIF_RATE = 50  # pictures per second that a GIF can tell, in hundredths of a second


@dataclass(frozen=True)
class RecorderOptions(Options):
    title = "Recording"
    record_screen_path: str | None = option(
        None, "folder for the game's frames as PNG: 000001.png and so on", kept="never"
    )
    record_sound_filename: str | None = option(None, "WAV file for the game's sound", kept="never")
    video_file: str | None = option(None, "film of the game: .mov or .mp4 with sound, .gif without", kept="never")
    record_games: int = option(0, "record only the first N games; 0: all", at_least=0, at_most=10**12, kept="never")


def make_recorders(options: RecorderOptions) -> list[Watcher]:
    """Those that make the recordings which `options` ask for.

    Raises:
        OptionError: there are no films of that kind.
        OutputError: a recording cannot be written.
    """
    kinds: tuple[tuple[str | None, Callable[[Path, int], Watcher]], ...] = (
        (options.record_screen_path, Frames),
        (options.record_sound_filename, SoundTrack),
        (options.video_file, Film),
    )
    return [make(Path(target), options.record_games) for target, make in kinds if target]


class Recorder(Watcher):
    """Records the first so many games (0: all) to `target`.

    Raises:
        OutputError: it cannot be written.
    """

    def __init__(self, target: Path, games: int) -> None:
        self.target = target
        self._most_games = games
        self._games = 0
        self._open = False
        self._missing = [path for path in (target, *target.parents) if not path.exists()]
        self._require_writable()

    def on_game(self) -> None:
        self._games += 1

    def on_frame(self, environment: Environment) -> None:
        if 0 < self._most_games < self._games:
            return
        with self._telling_of_errors():
            if not self._open:
                self._open = True
                self._begin(environment)
            self._add(environment)

    def finish(self) -> None:
        if self._open:
            with self._telling_of_errors():
                self._complete()
            self._open = False
            logger.info("Recorded %s", self.target)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._discard()
            with contextlib.suppress(OSError):  # something else may lie there by now
                for folder in filter(Path.is_dir, self._missing):
                    folder.rmdir()
            logger.info("The recording was broken off: nothing is left of it, and %s is as it was before", self.target)

    @contextlib.contextmanager
    def _telling_of_errors(self) -> Any:
        try:
            yield
        except self._errors() as error:
            raise OutputError(f"cannot record {self.target}: {reason(error)}") from error

    def _errors(self) -> tuple[type[Exception], ...]:
        return (OSError,)

    def _require_writable(self) -> None:
        require_writable(self.target)

    @abstractmethod
    def _begin(self, environment: Environment) -> None:
        """Makes the hidden place."""

    @abstractmethod
    def _add(self, environment: Environment) -> None:
        """Adds the frame that there is to see and hear."""

    @abstractmethod
    def _complete(self) -> None:
        """Moves what was recorded to the target."""

    @abstractmethod
    def _discard(self) -> None:
        """Removes the hidden place."""


class Frames(Recorder):
    """A folder of pictures; wide pixels are drawn as two."""

    _folder: Path | None = None

    def _require_writable(self) -> None:
        require_writable(self.target / "000001.png")

    def _begin(self, environment: Environment) -> None:
        import cv2

        self._encode: Any = cv2.imencode
        self.target.mkdir(parents=True, exist_ok=True)
        clear_away(self.target, r"\.recording\..*\.tmp")
        self._folder = Path(tempfile.mkdtemp(prefix=".recording.", suffix=".tmp", dir=self.target))
        self._count = 0

    def _add(self, environment: Environment) -> None:
        assert self._folder
        picture = enlarged(environment.picture(), environment.pixel_width, 1)
        whole, png = self._encode(".png", np.ascontiguousarray(picture[..., ::-1]))  # OpenCV has blue first
        if not whole:
            raise OSError("OpenCV cannot make a PNG of the frame")
        self._count += 1
        (self._folder / f"{self._count:06d}.png").write_bytes(png.tobytes())

    def _complete(self) -> None:
        assert self._folder
        for file in sorted(self._folder.iterdir()):
            os.replace(file, self.target / file.name)
        after = self._count + 1
        while (file := self.target / f"{after:06d}.png").is_file():  # of an earlier, longer recording; no others
            file.unlink()
            after += 1
        self._folder.rmdir()

    def _discard(self) -> None:
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


class _FileRecorder(Recorder):
    _growing: GrowingFile | None = None

    def _begin(self, environment: Environment) -> None:
        clear_away(self.target.parent, rf"\.{re.escape(self.target.name)}\..*\.tmp")
        self._growing = GrowingFile(self.target)

    def _complete(self) -> None:
        assert self._growing
        self._growing.complete()

    def _discard(self) -> None:
        if self._growing:
            self._growing.discard()


class SoundTrack(_FileRecorder):
    """A WAV file: one channel, unsigned bytes."""

    def __init__(self, target: Path, games: int) -> None:
        if target.suffix.lower() != ".wav":
            raise OptionError(f"--record_sound_filename {target}: sounds are .wav")
        super().__init__(target, games)

    def meet(self, environment: Environment) -> None:
        if not environment.sound().size:
            raise OptionError(f"--record_sound_filename {self.target}: the game has no sound to record")

    def _begin(self, environment: Environment) -> None:
        super()._begin(environment)
        assert self._growing
        self._wave = wave.open(self._growing.file, "wb")  # noqa: SIM115  (stays open as long as the recording)
        self._wave.setnchannels(1)
        self._wave.setsampwidth(1)
        self._wave.setframerate(environment.sound().size * environment.frames_per_second)

    def _add(self, environment: Environment) -> None:
        self._wave.writeframes(environment.sound().tobytes())

    def _complete(self) -> None:
        self._wave.close()
        super()._complete()

    def _discard(self) -> None:
        with contextlib.suppress(Exception):  # as it grows where there is no room, say
            self._wave.close()
        super()._discard()


class Film(_FileRecorder):
    """H.264 and AAC, which every player and browser knows, or an animated GIF."""

    def __init__(self, target: Path, games: int) -> None:
        self._kind = target.suffix.lower()[1:]
        if self._kind not in ("mov", "mp4", "gif"):
            raise OptionError(f"--video_file {target}: films are .mov, .mp4 or .gif")
        super().__init__(target, games)

    def _errors(self) -> tuple[type[Exception], ...]:
        from av import FFmpegError

        return (OSError, FFmpegError)

    def _begin(self, environment: Environment) -> None:
        import av

        super()._begin(environment)
        assert self._growing
        options = {} if self._kind == "gif" else {"movflags": "faststart"}  # browsers begin before they have it all
        self._container = av.open(self._growing.temporary, "w", format=self._kind, options=options)
        make = _GIFTrack if self._kind == "gif" else _PictureTrack
        self._tracks: list[Any] = [make(self._container, environment)]
        if self._kind != "gif" and environment.sound().size:
            self._tracks.append(_SoundTrack(self._container, environment))

    def _add(self, environment: Environment) -> None:
        for track in self._tracks:
            track.add(environment)

    def _complete(self) -> None:
        for track in self._tracks:
            track.end()
        self._container.close()
        super()._complete()

    def _discard(self) -> None:
        with contextlib.suppress(Exception):  # whatever it complains of, it is thrown away
            self._container.close()
        super()._discard()


def _resized(picture: Picture, height: int, width: int) -> Picture:
    """Resize a picture to the film's size, that of the first one, because an environment may change its size."""
    import cv2

    if picture.shape[:2] == (height, width):
        return picture
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


def _film_scale(environment: Environment) -> int:
    return max(1, _FILM_HEIGHT // environment.picture().shape[0])


class _PictureTrack:
    def __init__(self, container: Any, environment: Environment) -> None:
        self._container = container
        self._scale = _film_scale(environment)
        height, width, _ = self._shape(environment)
        rate = Fraction(environment.frames_per_second).limit_denominator(1001)
        self._stream = stream = container.add_stream("libx264", rate=rate, options=_X264)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = 1 / rate
        self._time_base, self._count = 1 / rate, 0

    def add(self, environment: Environment) -> None:
        from av import VideoFrame

        frame = VideoFrame.from_ndarray(self._picture(environment), "rgb24")
        frame.pts, frame.time_base = self._count, self._time_base
        self._count += 1
        self._container.mux(self._stream.encode(frame))

    def end(self) -> None:
        self._container.mux(self._stream.encode(None))

    def _shape(self, environment: Environment) -> tuple[int, ...]:
        return self._picture(environment).shape

    def _picture(self, environment: Environment) -> Picture:
        """Enlarged, and of an even number of rows and columns, as colours are stored for two by two."""
        picture = enlarged(environment.picture(), environment.pixel_width, self._scale)
        height, width, _ = picture.shape
        return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


class _SoundTrack:
    def __init__(self, container: Any, environment: Environment) -> None:
        from av import AudioResampler

        self._container = container
        self._rate = round(environment.sound().size * environment.frames_per_second)
        self._stream = container.add_stream("aac", rate=_FILM_SOUND, layout="mono")
        self._resampler = AudioResampler("fltp", "mono", _FILM_SOUND)
        self._samples = 0

    def add(self, environment: Environment) -> None:
        from av import AudioFrame

        sound = environment.sound()
        frame = AudioFrame.from_ndarray(sound[None], format="u8", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = self._rate, self._samples, Fraction(1, self._rate)
        self._samples += sound.size
        self._encode(frame)

    def end(self) -> None:
        self._encode(None)
        self._container.mux(self._stream.encode(None))

    def _encode(self, frame: Any) -> None:
        for resampled in self._resampler.resample(frame):
            self._container.mux(self._stream.encode(resampled))


class _GIFTrack:
    """Pictures of at most 256 colours, at a rate that a GIF can have: every other one of 60 a second.

    Pixels have the same shape as in a film. They are as small as that allows, because GIFs are large.
    """

    def __init__(self, container: Any, environment: Environment) -> None:
        self._container = container
        self._every = max(1, -(-round(environment.frames_per_second) // _GIF_RATE))
        self._frames = 0
        self._colours: dict[int, int] = {}
        self._palette = np.zeros((256, 4), np.uint8)  # alpha, red, green, blue
        self._palette[:, 0] = 255
        rate = Fraction(environment.frames_per_second / self._every).limit_denominator(1001)
        self._stream = stream = container.add_stream("gif", rate=rate)
        self._scale = least_height(environment.pixel_width, _film_scale(environment))
        picture = environment.picture()
        self._size = picture.shape[:2]
        height, width, _ = enlarged(picture, environment.pixel_width, self._scale).shape
        stream.width, stream.height, stream.pix_fmt, stream.time_base = width, height, "pal8", 1 / rate
        self._time_base = 1 / rate

    def add(self, environment: Environment) -> None:
        from av import VideoFrame

        self._frames += 1
        if (self._frames - 1) % self._every:
            return
        picture = _resized(environment.picture(), *self._size)
        indexes = enlarged(self._indexes(picture), environment.pixel_width, self._scale)
        indexed: Any = (indexes, self._palette)
        frame = VideoFrame.from_ndarray(indexed, "pal8")
        frame.pts, frame.time_base = (self._frames - 1) // self._every, self._time_base
        self._container.mux(self._stream.encode(frame))

    def end(self) -> None:
        self._container.mux(self._stream.encode(None))

    def _indexes(self, picture: Picture) -> NDArray[np.uint8]:
        """The place of every pixel's colour in the palette, which grows with the film; then the nearest will do."""
        packed = picture.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)  # (height, width)
        colours, inverse = np.unique(packed, return_inverse=True)
        places = np.array([self._place(int(colour)) for colour in colours], np.uint8)
        return places[inverse].reshape(packed.shape)

    def _place(self, colour: int) -> int:
        place = self._colours.get(colour)
        if place is None:
            rgb = np.array([colour >> 16, colour >> 8 & 255, colour & 255])
            place = len(self._colours)
            if place < 256:
                self._palette[place, 1:] = rgb
                self._colours[colour] = place
            else:
                place = int(np.square(self._palette[:, 1:].astype(int) - rgb).sum(axis=1).argmin())
        return place
