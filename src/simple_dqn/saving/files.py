"""Files are written completely or not at all: nothing of the user's is lost or half-written."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import TextIO

from simple_dqn.errors import OutputError, reason

ROOT = Path(__file__).resolve().parents[3]
PRETRAINED = "pretrained"  # the folders in snapshots/, results/ and videos/ with what ships


def replace_file(path: Path, content: bytes | bytearray) -> None:
    """Replace the content of `path` in one step.

    Raises:
        OutputError: it could not be written. The earlier content remains.
    """
    try:
        growing = GrowingFile(path)
        try:
            growing.file.write(content)
            growing.complete()
        finally:
            growing.discard()
    except OSError as error:
        raise OutputError(f"cannot write {path} ({len(content):,} bytes): {reason(error)}") from error


class GrowingFile:
    """A file that grows beside `path` and replaces it when it is complete.

    Attributes:
        file: to write to, binary.
        temporary: path of the unfinished file, for programs that write by path.

    Raises:
        OSError: it cannot be made. `complete` also raises it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path = path.resolve()  # because a link must remain a link
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, self.temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        self.file = os.fdopen(handle, "wb")

    def complete(self) -> None:
        """Flush the file to the disk and move it to its path."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(self.temporary, 0o666 & ~mask)  # because only the user can read a file of mkstemp
        os.replace(self.temporary, self._path)

    def discard(self) -> None:
        """Remove the file, unless it is complete."""
        with contextlib.suppress(OSError):  # because the disk may be full
            self.file.close()
        Path(self.temporary).unlink(missing_ok=True)


def require_writable(path: Path) -> None:
    """Check now that `path` can be written, because an error after hours of training is too late.

    Raises:
        OutputError: its folder cannot be made or written to, or `path` is a folder, a device, read-only, or among the
            files that ship.
    """
    try:
        if ships(path):
            raise OSError(f"no command changes the included files in {path.parent}: name another folder")
        if path.is_dir():
            raise IsADirectoryError("it is a folder, name a file")
        if path.exists() and not path.is_file():  # /dev/null must not become a file
            raise OSError("it is not a regular file")
        folder = next(folder for folder in path.absolute().parents if folder.exists())  # the others are made later
        with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", suffix=".tmp", dir=folder) as file:
            file.write(b"\0")
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError("it is read-only")
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot write {path}: {reason(error)}") from error


def ships(path: Path) -> bool:
    """Whether `path` lies in a folder of files that ship with the program, as in snapshots/pretrained."""
    return any(folder.name == PRETRAINED and folder.parent.parent == ROOT for folder in path.resolve().parents)


def here(path: Path) -> Path:
    """Return `path` relative to the current folder if it lies below that."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def free_number(*paths: str | None) -> int:
    """Return the smallest number from 1 on for which PATH.number exists for none of `paths`."""
    given = [path for path in paths if path]
    return next(n for n in itertools.count(1) if not any(os.path.lexists(f"{path}.{n}") for path in given))


def clear_away(folder: Path, pattern: str, untouched: float = 3600) -> None:
    """Remove unfinished files of killed runs from `folder`, if they have not changed for `untouched` seconds."""
    for left in folder.glob(".*.tmp"):
        if re.fullmatch(pattern, left.name) and (not untouched or time.time() - left.stat().st_mtime > untouched):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


class Lock:
    """Keep other runs from writing files of this `prefix`, until `close` is called or this process ends.

    Unfinished snapshots and checkpoints of this prefix, which killed runs left, are removed.

    Args:
        prefix: PREFIX.lock is the file that is locked.
        files: what the errors call the files; None: PREFIX_*.
        advice: what the user can do, besides waiting.

    Raises:
        OutputError: another run has it.
    """

    def __init__(self, prefix: str, files: str | None = None, advice: str = "give this one a label") -> None:
        files = files or f"{prefix}_*"
        self._path = Path(f"{prefix}.lock")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a+")
        except OSError as error:
            raise OutputError(f"cannot write {files}: {reason(error)}") from None
        if not _locked(self._file):
            self._file.seek(0)
            owner = self._file.read().strip() or "unknown process"
            self._file.close()
            raise OutputError(f"another run ({owner}) is writing {files}: wait for it, end it, or {advice}")
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()}")
        self._file.flush()
        ours = rf"\.{re.escape(self._path.stem)}_(\d+|best)\.\w+\..*\.tmp"  # not those of another label
        clear_away(self._path.parent, ours, untouched=0)  # because this run holds the lock

    def close(self) -> None:
        """Release the lock."""
        self._path.unlink(missing_ok=True)
        self._file.close()


def in_use(prefix: str) -> bool:
    """Return whether a run has the `Lock` of this prefix, as far as the file system tells. False for copied files."""
    try:
        with Path(f"{prefix}.lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # NFS needs more rights for an exclusive lock
    except FileNotFoundError:
        return False
    except OSError:  # it is locked, or the file system does not tell
        return True
    return False


def _locked(file: TextIO) -> bool:
    """Lock an open file. Return whether no other process has it. A file system without locks never refuses."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return os.fstat(file.fileno()).st_nlink > 0  # 0: another run has just removed the file
