"""Checkpoints: everything that a training needs to continue as if it had never stopped.

PREFIX_EPOCH.checkpoint is a small file with everything but the replay memory. The memory is in chunks,
PREFIX_TRANSITIONS.replay. A new chunk holds only the transitions since the chunk before, so saving is fast. Every
file is written completely or not at all. Its length and checksum are saved, so that damage is noticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import zstandard

from simple_dqn.errors import CheckpointError, OutputError, SnapshotError, reason
from simple_dqn.machine import num_cores
from simple_dqn.replay_memory import ReplayMemory
from simple_dqn.saving.files import replace_file
from simple_dqn.saving.names import best_of, files_of, number_of
from simple_dqn.saving.snapshot import plain_bytes, plain_value

_KIND = "simple_dqn checkpoint"
_MAGIC = f"{_KIND} 2"  # with the version of the format
_LEVEL = 3  # of compression


class Chunk(NamedTuple):
    """A file with a part of the replay memory."""

    name: str
    start: list[int]  # number of transitions added to each lane before this chunk
    stop: list[int]  # the same at its end
    length: int  # bytes
    sha256: str


class _Header(NamedTuple):
    """What stands before the payload of a checkpoint."""

    length: int  # of the payload, bytes
    sha256: str
    chunks: list[Chunk]
    serial: int  # larger in later checkpoints. Copies of a file may lose its time, and equal runs write equal files


class Checkpoint(NamedTuple):
    """A checkpoint, complete with all its chunks."""

    path: Path
    state: dict[str, Any]
    chunks: list[Chunk]
    due: tuple[str, int]  # the next phase and its epoch. During random moves: the phase that follows them


class Checkpoints:
    """Write the checkpoints of a training and keep those of the last two epochs.

    Args:
        prefix: their path, up to the epoch's number.
        chunks: those of the checkpoint from which the training continues.
    """

    def __init__(self, prefix: str, chunks: Sequence[Chunk] = ()) -> None:
        self._prefix = Path(prefix)
        self._chunks = list(chunks)

    def save(self, number: int, state: dict[str, Any], memory: ReplayMemory) -> Path:
        """Write the checkpoint of epoch `number`: first the new transitions of `memory`, then `state`.

        Raises:
            OutputError: it could not be written. Earlier checkpoints remain valid.
        """
        start = self._chunks[-1].stop if self._chunks else [0] * len(memory.added)
        if memory.added.tolist() != start:
            self._chunks.append(self._write_chunk(memory, start))
        overwritten = memory.added - memory.counts
        self._chunks = [chunk for chunk in self._chunks if (chunk.stop > overwritten).any()]
        payload = zstandard.ZstdCompressor(level=_LEVEL).compress(plain_bytes(state))
        headers = map(_valid_header, files_of(self._prefix, "checkpoint"))
        serial = max((header.serial for header in headers if header), default=0) + 1
        line = json.dumps(_Header(len(payload), _sha256(payload), self._chunks, serial)._asdict()).encode()
        path = Path(f"{self._prefix}_{number}.checkpoint")
        replace_file(path, b"%s %08x\n%s\n%s" % (_MAGIC.encode(), zlib.crc32(line), line, payload))
        self._tidy(number)
        return path

    def _write_chunk(self, memory: ReplayMemory, start: Sequence[int]) -> Chunk:
        compressor = zstandard.ZstdCompressor(level=_LEVEL, threads=num_cores()).compressobj()
        content, stop = bytearray(), memory.added.tolist()
        for lane, part in _parts(memory, start, stop):
            for array in memory.transitions(lane, part):
                content += compressor.compress(np.ascontiguousarray(array).data.cast("B"))
        content += compressor.flush()
        number, needed = sum(stop), _chunk_names(files_of(self._prefix, "checkpoint"))
        while f"{self._prefix.name}_{number}.replay" in needed:  # by an earlier training of this name
            number += 1
        path = Path(f"{self._prefix}_{number}.replay")
        replace_file(path, content)
        return Chunk(path.name, list(start), stop, len(content), _sha256(content))

    def _tidy(self, number: int) -> None:
        """Remove checkpoints before the last two epochs, and chunks that no remaining checkpoint uses."""
        for path in files_of(self._prefix, "checkpoint"):
            if number_of(path) < number - 1:
                path.unlink(missing_ok=True)
        needed = _chunk_names(files_of(self._prefix, "checkpoint"))
        for path in files_of(self._prefix, "replay"):
            if path.name not in needed:
                path.unlink(missing_ok=True)


def set_aside(prefix: Path, folder: Path, after: int) -> list[Path]:
    """Move what an earlier run saved under `prefix` after epoch `after` into `folder`. Return what moved.

    Links all files before it removes the first one. So a move that is interrupted leaves the run complete in one of the
    two places.

    Raises:
        OutputError: the files could not be moved.
    """
    snapshots = [path for kind in ("pkl", "prm") for path in files_of(prefix, kind) if number_of(path) > after]
    found = checkpoints_of(prefix)
    gone = [path for path in found if number_of(path) > after]
    kept = _chunk_names(path for path in found if path not in gone)
    chunks = [path for path in files_of(prefix, "replay") if path.name not in kept]
    best = [best_of(prefix)] if best_of(prefix).is_file() and (snapshots or gone or after < 0) else []
    moved = [*sorted(snapshots, key=number_of), *best, *gone, *chunks]
    shared = _chunk_names(gone) & kept
    incomplete = False  # whether `folder` lacks files
    try:
        if moved:
            folder.mkdir()
            incomplete = True
        for path in moved:
            _link(path, folder / path.name)
        for name in shared:
            shutil.copyfile(prefix.parent / name, folder / name)
        incomplete = False
        for path in moved:
            path.unlink(missing_ok=True)
    except OSError as error:
        if incomplete:
            shutil.rmtree(folder, ignore_errors=True)
        raise OutputError(f"cannot move {prefix}_*, an earlier run's files, to {folder}: {reason(error)}") from error
    return moved


def _link(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError:  # a file system without hard links
        shutil.copy2(path, target)
        with target.open("rb") as file:
            os.fsync(file.fileno())  # because the original is removed


def restore_memory(memory: ReplayMemory, checkpoint: Checkpoint) -> None:
    """Put the transitions of a checkpoint and the rest of the memory's state back into `memory`."""
    memory.restore(checkpoint.state["memory"])
    for chunk in checkpoint.chunks:
        with (checkpoint.path.parent / chunk.name).open("rb") as file:
            reader = zstandard.ZstdDecompressor().stream_reader(file)
            for lane, part in _parts(memory, chunk.start, chunk.stop):
                arrays = []
                for kind in memory.transitions(lane, part[:1]):
                    shape = (len(part), *kind.shape[1:])
                    content = bytearray(reader.read(math.prod(shape) * kind.itemsize))  # writable, for PyTorch
                    arrays.append(np.frombuffer(content, kind.dtype).reshape(shape))
                memory.set_transitions(lane, part, arrays)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and check that it and its chunks are complete.

    Raises:
        CheckpointError: one of them is missing or damaged. The message names it.
    """
    with _reading(path) as file:
        header = _read_header(path, file)
        payload = file.read()
    _require_intact(path, payload, header.length, header.sha256)
    try:
        state = plain_value(zstandard.ZstdDecompressor().decompress(payload))
        phase, epoch = state["then" if state["stage"][0] == "random" else "stage"]
    except (zstandard.ZstdError, SnapshotError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    for chunk in header.chunks:
        with _reading(path.parent / chunk.name) as file:
            _require_intact(path.parent / chunk.name, file.read(), chunk.length, chunk.sha256)
    return Checkpoint(path, state, header.chunks, (phase, epoch))


def checkpoints_of(prefix: Path) -> list[Path]:
    """The checkpoints of a training, from the last one to the first. Damaged ones come first, to be reported."""

    def age(path: Path) -> tuple[float, int, int]:
        header = _valid_header(path)
        return header.serial if header else math.inf, path.stat().st_mtime_ns, number_of(path)

    return sorted(files_of(prefix, "checkpoint"), key=age, reverse=True)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {reason(error)}") from None


def _read_header(path: Path, file: BinaryIO) -> _Header:
    first, line = file.readline(64), file.readline()
    if first.startswith(f"{_KIND} ".encode()) and not first.startswith(f"{_MAGIC} ".encode()):
        raise CheckpointError(f"{path} was written by another version of this program, and cannot be resumed")
    try:
        if first.decode() != f"{_MAGIC} {zlib.crc32(line[:-1]):08x}\n":
            raise ValueError
        header = _Header(**json.loads(line))
        return header._replace(chunks=[Chunk(*chunk) for chunk in header.chunks])
    except (ValueError, TypeError):
        raise CheckpointError(f"{path} is damaged: it does not begin like a checkpoint") from None


def _valid_header(path: Path) -> _Header | None:
    try:
        with _reading(path) as file:
            return _read_header(path, file)
    except CheckpointError:
        return None


def _chunk_names(checkpoints: Iterable[Path]) -> set[str]:
    return {chunk.name for header in map(_valid_header, checkpoints) if header for chunk in header.chunks}


def _require_intact(path: Path, content: bytes, length: int, sha256: str) -> None:
    if len(content) != length or _sha256(content) != sha256:
        raise CheckpointError(f"{path} is damaged: its content has changed")


def _parts(memory: ReplayMemory, start: Sequence[int], stop: Sequence[int]) -> Iterator[tuple[int, range]]:
    """Yield lane and numbers of the transitions from `start` to before `stop` that are still there, 1024 at a time."""
    for lane, (first, last) in enumerate(zip(start, stop, strict=True)):
        for begin in range(max(first, last - memory.lane_size), last, 1024):
            yield lane, range(begin, min(begin + 1024, last))


def _sha256(content: bytes | bytearray) -> str:
    return hashlib.sha256(content).hexdigest()
