"""Films of a game: pictures and sound in one file, or an animated GIF."""

from __future__ import annotations

import contextlib
import io
from abc import ABC, abstractmethod
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simple_dqn.environment import Picture
from simple_dqn.errors import OptionError, OutputError, reason
from simple_dqn.watching.display import enlarged, least_height
from simple_dqn.watching.recorder import FileRecorder, Frame

FILM_HEIGHT = 630  # maximum in pixels, unless the game has more: three times Atari's 210
_FILM_SOUND = 48_000  # samples per second, because every player supports this rate
# At crf 18 the loss is invisible. Slower presets than veryfast take longer than the game, and save few bytes.
BT_601 = 5  # FFmpeg's number of the colour space, because players guess another one for large films
_X264 = {"preset": "veryfast", "crf": "18"}
_FEW_COLOURS = 128  # as many as an Atari has
_CUBE, _GREYS = 6, 40  # for pictures with more colours: levels of red, green and blue, and of grey; 256 in all
_NEARLY_GREY = 24  # difference of red, green and blue
_GIF_RATE = 50  # maximum pictures per second, because GIF files count in hundredths of a second


class Film(FileRecorder):
    """H.264 and AAC, which every player and browser knows, or an animated GIF."""

    def __init__(self, target: Path) -> None:
        self._kind = target.suffix.lower()[1:]
        if self._kind not in ("mov", "mp4", "gif"):
            raise OptionError(f"--video_file {target}: the name must end in .mov, .mp4 or .gif")
        super().__init__(target)

    def _begin(self, environment: Frame) -> None:
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

    def _add(self, environment: Frame) -> None:
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
            # Without assembly and threads, because x264's assembly reads memory beyond the rows: equal films would
            # become different ones.
            how: Any = dict(pix_fmt="yuv420p", options={"crf": "28", "threads": "1", "x264-params": "asm=0"})
            rate = rate.limit_denominator(1001)
            stream: Any = target.add_stream("libx264", rate=rate, width=width, height=height, **how)
            stream.codec_context.colorspace = BT_601
            for number, picture in enumerate(source.decode(pictures)):
                if number % 2 == 0:
                    frame = picture.reformat(width, height)
                    frame.pts, frame.time_base = number // 2, 1 / rate
                    target.mux(stream.encode(frame))
            target.mux(stream.encode(None))
    except (OSError, av.FFmpegError, IndexError) as error:
        raise OutputError(f"cannot read the film {path}: {reason(error)}. Delete it") from None
    return data.getvalue()


def film_scale(environment: Frame) -> int:
    """The height of a picture's pixel in a film, in pixels."""
    return max(1, FILM_HEIGHT // environment.picture().shape[0])


class _Track(ABC):
    """The pictures or the sounds of a film, at `rate` per second."""

    def __init__(self, container: Any, codec: str, rate: Fraction | int, **how: Any) -> None:
        self._container = container
        self._stream = container.add_stream(codec, rate=rate, **how)
        self._time_base = 1 / Fraction(rate)
        self._count = 0  # of pictures or samples so far

    @abstractmethod
    def add(self, environment: Frame) -> None:
        """Add the current picture or sound."""

    def end(self) -> None:
        self._container.mux(self._stream.encode(None))

    def _encode(self, frame: Any, length: int = 1) -> None:
        """Append a frame of `length` pictures or samples."""
        frame.pts, frame.time_base = self._count, self._time_base
        self._count += length
        self._container.mux(self._stream.encode(frame))


class _PictureTrack(_Track):
    def __init__(self, container: Any, environment: Frame) -> None:
        self._scale = film_scale(environment)
        height, width, _ = self._picture(environment).shape
        rate = Fraction(environment.frames_per_second).limit_denominator(1001)
        super().__init__(container, "libx264", rate, width=width, height=height, pix_fmt="yuv420p", options=_X264)
        self._stream.codec_context.colorspace = BT_601

    def add(self, environment: Frame) -> None:
        from av import VideoFrame

        self._encode(VideoFrame.from_ndarray(self._picture(environment), "rgb24"))

    def _picture(self, environment: Frame) -> Picture:
        """The enlarged picture, with even height and width, because H.264 stores colours for 2x2 pixels."""
        picture = enlarged(environment.picture(), environment.pixel_width, self._scale)
        height, width, _ = picture.shape
        return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


class _SoundTrack(_Track):
    def __init__(self, container: Any, environment: Frame) -> None:
        from av import AudioResampler

        super().__init__(container, "aac", _FILM_SOUND, layout="mono")
        self._rate = round(environment.sound().size * environment.frames_per_second)
        self._resampler = AudioResampler("fltp", "mono", _FILM_SOUND)

    def add(self, environment: Frame) -> None:
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

    If the first picture has few colours, these and later ones are exact, up to 256. If not, all are rounded.

    Pixels have the same shape as in a film, and are as small as this shape allows, because GIF files are large.
    """

    def __init__(self, container: Any, environment: Frame) -> None:
        self._interval = max(1, -(-round(environment.frames_per_second) // _GIF_RATE))
        self._frames = 0
        self._indexes: dict[int, int] = {}  # in the palette, by colour
        self._colours = 0  # in the palette
        self._palette = np.zeros((256, 4), np.uint8)  # alpha, red, green, blue
        self._palette[:, 0] = 255
        self._scale = least_height(environment.pixel_width, film_scale(environment))
        picture = environment.picture()
        self._rounded = len(np.unique(picture.reshape(-1, 3), axis=0)) > _FEW_COLOURS
        if self._rounded:
            self._palette[: _CUBE**3, 1:] = np.indices((_CUBE,) * 3).reshape(3, -1).T * 255 // (_CUBE - 1)
            self._palette[_CUBE**3 :, 1:] = (np.arange(_GREYS) * 255 // (_GREYS - 1))[:, None]
        self._size = picture.shape[1::-1]  # width, height
        height, width, _ = enlarged(picture, environment.pixel_width, self._scale).shape
        rate = Fraction(environment.frames_per_second / self._interval).limit_denominator(1001)
        super().__init__(container, "gif", rate, width=width, height=height, pix_fmt="pal8")

    def add(self, environment: Frame) -> None:
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
        if self._rounded:
            wide = picture.astype(np.int32)
            cube = (wide * (_CUBE - 1) + 127) // 255 @ np.array([_CUBE**2, _CUBE, 1])
            grey = _CUBE**3 + (wide.sum(axis=2) * (_GREYS - 1) + 382) // 765
            return np.where(np.ptp(wide, axis=2) < _NEARLY_GREY, grey, cube).astype(np.uint8)
        packed = picture.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)  # (height, width)
        colours, inverse = np.unique(packed, return_inverse=True)
        indexes = np.array([self._index(int(colour)) for colour in colours], np.uint8)
        return indexes[inverse].reshape(packed.shape)

    def _index(self, colour: int) -> int:
        """The palette index of a colour, or of the nearest one if the palette is full."""
        if colour in self._indexes:
            return self._indexes[colour]
        rgb = np.array([colour >> 16, colour >> 8 & 255, colour & 255])
        index = self._colours
        if index == 256:
            index = int(np.square(self._palette[:, 1:].astype(int) - rgb).sum(axis=1).argmin())
        else:
            self._palette[index, 1:] = rgb
            self._colours += 1
        self._indexes[colour] = index
        return index
