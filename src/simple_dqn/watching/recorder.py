"""Recordings of a game: its frames as PNG files, its sound as a WAV file. film.py has films.

A recording is written to a hidden temporary file or folder. It replaces an earlier recording only when it is complete.
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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from simple_dqn.environment import Environment, Picture, Sound
from simple_dqn.errors import OptionError, OutputError, reason
from simple_dqn.options import Options, option
from simple_dqn.saving.files import GrowingFile, clear_away, require_writable
from simple_dqn.watching.display import enlarged
from simple_dqn.watching.watcher import Watcher

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecorderOptions(Options):
    title = "Recording"
    record_screen_path: str | None = option(
        None, "folder for the game's frames as PNG: 000001.png and so on", kept="never"
    )
    record_sound_filename: str | None = option(None, "WAV file for the game's sound", kept="never")
    video_file: str | None = option(None, "film of the game: .mov or .mp4 with sound, .gif without", kept="never")
    video_from: float | None = option(
        None, "second of the game at which the film starts", at_least=0, at_most=10**6, kept="never",
        default_text="the start; with --video_seconds: where most points are scored",
    )  # fmt: skip
    video_seconds: float = option(
        0.0, "length of the film in seconds of the game; 0: up to its end", at_least=0, at_most=10**6, kept="never"
    )
    overlay: bool = option(
        False, "film what the key v shows: Q-values, and the pixels that influenced each action", kept="never"
    )
    record_games: int = option(0, "record only the first N games; 0: all", at_least=0, at_most=10**12, kept="never")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("video_from", "video_seconds", "overlay"):
            if getattr(self, name) and not self.video_file:
                raise OptionError(f"--{name} is for films. Add --video_file NAME.mp4")


class Frame(Protocol):
    """What is recorded of a frame, as an `Environment` has it."""

    @property
    def frames_per_second(self) -> float:
        """Natural speed of the game."""

    @property
    def pixel_width(self) -> float:
        """Width of a picture's pixel, in pixel heights."""

    def picture(self) -> Picture:
        """The frame in colour, (height, width, 3)."""

    def sound(self) -> Sound:
        """The frame's sound. Empty: the game has no sound."""


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

    def on_frame(self, environment: Frame) -> None:
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
    def _begin(self, environment: Frame) -> None:
        """Make the temporary file or folder."""

    @abstractmethod
    def _add(self, environment: Frame) -> None:
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

    def _begin(self, environment: Frame) -> None:
        import cv2

        self._encode: Any = cv2.imencode
        self.target.mkdir(parents=True, exist_ok=True)
        clear_away(self.target, r"\.recording\..*\.tmp")
        self._folder = Path(tempfile.mkdtemp(prefix=".recording.", suffix=".tmp", dir=self.target))
        self._count = 0

    def _add(self, environment: Frame) -> None:
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


class FileRecorder(Recorder):
    """Records games to a file."""

    _growing: GrowingFile | None = None

    def _begin(self, environment: Frame) -> None:
        clear_away(self.target.parent, rf"\.{re.escape(self.target.name)}\..*\.tmp")
        self._growing = GrowingFile(self.target)

    def _complete(self) -> None:
        assert self._growing
        self._growing.complete()

    def _discard(self) -> None:
        if self._growing:
            self._growing.discard()


class SoundTrack(FileRecorder):
    """A WAV file: one channel, 8 bits unsigned."""

    def __init__(self, target: Path) -> None:
        if target.suffix.lower() != ".wav":
            raise OptionError(f"--record_sound_filename {target}: the name must end in .wav")
        super().__init__(target)

    def meet(self, environment: Environment) -> None:
        if not environment.sound().size:
            raise OptionError(f"--record_sound_filename {self.target}: the game has no sound to record")

    def _begin(self, environment: Frame) -> None:
        super()._begin(environment)
        assert self._growing
        self._wave = wave.open(self._growing.file, "wb")  # noqa: SIM115  (stays open during the recording)
        self._wave.setnchannels(1)
        self._wave.setsampwidth(1)
        self._wave.setframerate(environment.sound().size * environment.frames_per_second)

    def _add(self, environment: Frame) -> None:
        self._wave.writeframes(environment.sound().tobytes())

    def _complete(self) -> None:
        self._wave.close()
        super()._complete()

    def _discard(self) -> None:
        with contextlib.suppress(Exception):  # such as a full disk
            self._wave.close()
        super()._discard()
