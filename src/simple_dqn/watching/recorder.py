"""Recordings of a game: its frames as PNG files, its sound as a WAV file, both as a film.

A recording is written to a hidden temporary file or folder. It replaces an earlier recording only when it is complete.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import shutil
import tempfile
import wave
from abc import ABC, abstractmethod
from collections.abc import Iterator
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
from simple_dqn.watching.display import enlarged, least_height
from simple_dqn.watching.watcher import Watcher, WatcherGroup

logger = logging.getLogger(__name__)

_FILM_HEIGHT = 630  # maximum in pixels, unless the game has more: three times Atari's 210
_FILM_SOUND = 48_000  # samples per second, because every player supports this rate
# At crf 18 the loss is invisible. Slower presets than veryfast take longer than the game, and save few bytes.
_X264 = {"preset": "veryfast", "crf": "18"}
_GIF_RATE = 50  # maximum pictures per second, because GIF files count in hundredths of a second


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
    """The recorders that `options` ask for.

    Raises:
        OptionError: the type of a file is unknown.
        OutputError: a recording cannot be written.
    """
    recorders: list[Watcher] = []
    if options.record_screen_path:
        recorders.append(Frames(Path(options.record_screen_path)))
    if options.record_sound_filename:
        recorders.append(SoundTrack(Path(options.record_sound_filename)))
    if options.video_file:
        recorders.append(Film(Path(options.video_file)))
    return [WatcherGroup(recorders, options.record_games)] if recorders else []


class Recorder(Watcher):
    """Records games to `target`.

    Raises:
        OutputError: the target cannot be written.
    """

    _errors: tuple[type[Exception], ...] = (OSError,)  # that become an OutputError

    def __init__(self, target: Path) -> None:
        self.target = target
        self._open = False
        self._new_paths = [path for path in (target, *target.parents) if not path.exists()]
        self._require_writable()

    def on_frame(self, environment: Environment) -> None:
        with self._output_errors():
            if not self._open:
                self._open = True
                self._begin(environment)
            self._add(environment)

    def finish(self) -> None:
        if self._open:
            with self._output_errors():
                self._complete()
            self._open = False
            logger.info("Recorded %s", self.target)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._discard()
            with contextlib.suppress(OSError):  # because other files may be in it by now
                for folder in filter(Path.is_dir, self._new_paths):
                    folder.rmdir()
            logger.info("The recording was interrupted and is deleted. %s is as it was before", self.target)

    @contextlib.contextmanager
    def _output_errors(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise OutputError(f"cannot record {self.target}: {reason(error)}") from error

    def _require_writable(self) -> None:
        require_writable(self.target)

    @abstractmethod
    def _begin(self, environment: Environment) -> None:
        """Make the temporary file or folder."""

    @abstractmethod
    def _add(self, environment: Environment) -> None:
        """Add the current frame and its sound."""

    @abstractmethod
    def _complete(self) -> None:
        """Move the recording to the target."""

    @abstractmethod
    def _discard(self) -> None:
        """Delete the temporary file or folder."""


class Frames(Recorder):
    """A folder of PNG files. A wide pixel becomes two."""

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
        encoded, png = self._encode(".png", np.ascontiguousarray(picture[..., ::-1]))  # because OpenCV has blue first
        if not encoded:
            raise OSError("OpenCV cannot make a PNG of the frame")
        self._count += 1
        (self._folder / f"{self._count:06d}.png").write_bytes(png.tobytes())

    def _complete(self) -> None:
        assert self._folder
        for file in sorted(self._folder.iterdir()):
            os.replace(file, self.target / file.name)
        surplus = self._count + 1
        while (file := self.target / f"{surplus:06d}.png").is_file():  # the rest of an earlier, longer recording
            file.unlink()
            surplus += 1
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
    """A WAV file: one channel, 8 bits unsigned."""

    def __init__(self, target: Path) -> None:
        if target.suffix.lower() != ".wav":
            raise OptionError(f"--record_sound_filename {target}: the name must end in .wav")
        super().__init__(target)

    def meet(self, environment: Environment) -> None:
        if not environment.sound().size:
            raise OptionError(f"--record_sound_filename {self.target}: the game has no sound to record")

    def _begin(self, environment: Environment) -> None:
        super()._begin(environment)
        assert self._growing
        self._wave = wave.open(self._growing.file, "wb")  # noqa: SIM115  (stays open during the recording)
        self._wave.setnchannels(1)
        self._wave.setsampwidth(1)
        self._wave.setframerate(environment.sound().size * environment.frames_per_second)

    def _add(self, environment: Environment) -> None:
        self._wave.writeframes(environment.sound().tobytes())

    def _complete(self) -> None:
        self._wave.close()
        super()._complete()

    def _discard(self) -> None:
        with contextlib.suppress(Exception):  # such as a full disk
            self._wave.close()
        super()._discard()


class Film(_FileRecorder):
    """H.264 and AAC, which every player and browser knows, or an animated GIF."""

    def __init__(self, target: Path) -> None:
        self._kind = target.suffix.lower()[1:]
        if self._kind not in ("mov", "mp4", "gif"):
            raise OptionError(f"--video_file {target}: the name must end in .mov, .mp4 or .gif")
        super().__init__(target)

    def _begin(self, environment: Environment) -> None:
        import av

        self._errors = (OSError, av.FFmpegError)
        super()._begin(environment)
        assert self._growing
        options = {} if self._kind == "gif" else {"movflags": "faststart"}  # browsers start it before the download ends
        self._container = av.open(self._growing.temporary, "w", format=self._kind, options=options)
        if self._kind == "gif":
            self._tracks: list[_Track] = [_GIFTrack(self._container, environment)]
        else:
            self._tracks = [_PictureTrack(self._container, environment)]
            if environment.sound().size:
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
        with contextlib.suppress(Exception):  # because the film is deleted anyway
            self._container.close()
        super()._discard()


def small_film(path: Path) -> bytes:
    """Return a film with a third of the height, half of the pictures and no sound, as MP4.

    Raises:
        OutputError: the file cannot be read.
    """
    import av

    data = io.BytesIO()
    try:
        with av.open(str(path)) as source, av.open(data, "w", format="mp4") as target:
            pictures = source.streams.video[0]
            rate = Fraction(pictures.average_rate or 60) / 2
            width, height = (max(2, side // 3 // 2 * 2) for side in (pictures.width, pictures.height))
            how: Any = dict(width=width, height=height, pix_fmt="yuv420p", options={"crf": "28"})
            stream: Any = target.add_stream("libx264", rate=rate.limit_denominator(1001), **how)
            for number, picture in enumerate(source.decode(pictures)):
                if number % 2 == 0:
                    frame = picture.reformat(width, height)
                    frame.pts, frame.time_base = number // 2, 1 / rate
                    target.mux(stream.encode(frame))
            target.mux(stream.encode(None))
    except (OSError, av.FFmpegError, IndexError) as error:
        raise OutputError(f"cannot read the film {path}: {reason(error)}. Delete it") from None
    return data.getvalue()


def _film_scale(environment: Environment) -> int:
    return max(1, _FILM_HEIGHT // environment.picture().shape[0])


class _Track(ABC):
    """The pictures or the sounds of a film, at `rate` per second."""

    def __init__(self, container: Any, codec: str, rate: Fraction | int, **how: Any) -> None:
        self._container = container
        self._stream = container.add_stream(codec, rate=rate, **how)
        self._time_base = 1 / Fraction(rate)
        self._count = 0  # of pictures or samples so far

    @abstractmethod
    def add(self, environment: Environment) -> None:
        """Add the current picture or sound."""

    def end(self) -> None:
        self._container.mux(self._stream.encode(None))

    def _encode(self, frame: Any, length: int = 1) -> None:
        """Append a frame of `length` pictures or samples."""
        frame.pts, frame.time_base = self._count, self._time_base
        self._count += length
        self._container.mux(self._stream.encode(frame))


class _PictureTrack(_Track):
    def __init__(self, container: Any, environment: Environment) -> None:
        self._scale = _film_scale(environment)
        height, width, _ = self._picture(environment).shape
        rate = Fraction(environment.frames_per_second).limit_denominator(1001)
        super().__init__(container, "libx264", rate, width=width, height=height, pix_fmt="yuv420p", options=_X264)

    def add(self, environment: Environment) -> None:
        from av import VideoFrame

        self._encode(VideoFrame.from_ndarray(self._picture(environment), "rgb24"))

    def _picture(self, environment: Environment) -> Picture:
        """The enlarged picture, with even height and width, because H.264 stores colours for 2x2 pixels."""
        picture = enlarged(environment.picture(), environment.pixel_width, self._scale)
        height, width, _ = picture.shape
        return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


class _SoundTrack(_Track):
    def __init__(self, container: Any, environment: Environment) -> None:
        from av import AudioResampler

        super().__init__(container, "aac", _FILM_SOUND, layout="mono")
        self._rate = round(environment.sound().size * environment.frames_per_second)
        self._resampler = AudioResampler("fltp", "mono", _FILM_SOUND)

    def add(self, environment: Environment) -> None:
        from av import AudioFrame

        frame = AudioFrame.from_ndarray(environment.sound()[None], format="u8", layout="mono")
        frame.sample_rate = self._rate
        self._resample(frame)

    def end(self) -> None:
        self._resample(None)
        super().end()

    def _resample(self, frame: Any) -> None:
        for resampled in self._resampler.resample(frame):
            self._encode(resampled, resampled.samples)


class _GIFTrack(_Track):
    """At most 256 colours and 50 pictures a second: of 60 frames a second, every other one is used.

    Pixels have the same shape as in a film, and are as small as this shape allows, because GIF files are large.
    """

    def __init__(self, container: Any, environment: Environment) -> None:
        self._interval = max(1, -(-round(environment.frames_per_second) // _GIF_RATE))
        self._frames = 0
        self._indexes: dict[int, int] = {}  # of the colours in the palette
        self._palette = np.zeros((256, 4), np.uint8)  # alpha, red, green, blue
        self._palette[:, 0] = 255
        self._scale = least_height(environment.pixel_width, _film_scale(environment))
        picture = environment.picture()
        self._size = picture.shape[1::-1]  # width, height
        height, width, _ = enlarged(picture, environment.pixel_width, self._scale).shape
        rate = Fraction(environment.frames_per_second / self._interval).limit_denominator(1001)
        super().__init__(container, "gif", rate, width=width, height=height, pix_fmt="pal8")

    def add(self, environment: Environment) -> None:
        import cv2
        from av import VideoFrame

        self._frames += 1
        if (self._frames - 1) % self._interval:
            return
        # Resized, because an environment may change the size of its pictures.
        picture = np.asarray(cv2.resize(environment.picture(), self._size, interpolation=cv2.INTER_NEAREST), np.uint8)
        indexed: Any = (enlarged(self._indexed(picture), environment.pixel_width, self._scale), self._palette)
        self._encode(VideoFrame.from_ndarray(indexed, "pal8"))

    def _indexed(self, picture: Picture) -> NDArray[np.uint8]:
        """The palette index of each pixel. New colours are added until the palette is full."""
        packed = picture.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)  # (height, width)
        colours, inverse = np.unique(packed, return_inverse=True)
        indexes = np.array([self._index(int(colour)) for colour in colours], np.uint8)
        return indexes[inverse].reshape(packed.shape)

    def _index(self, colour: int) -> int:
        """The palette index of a colour, or of the nearest one if the palette is full."""
        if colour in self._indexes:
            return self._indexes[colour]
        rgb = np.array([colour >> 16, colour >> 8 & 255, colour & 255])
        index = len(self._indexes)
        if index == 256:
            return int(np.square(self._palette[:, 1:].astype(int) - rgb).sum(axis=1).argmin())
        self._palette[index, 1:] = rgb
        self._indexes[colour] = index
        return index
