"""Files that are whole or not there: nothing of the user's is lost or half-written."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from simple_dqn.errors import OutputError


def write_whole(path: Path, content: bytes) -> None:
    """Replaces `path` by `content` in one go: written beside it, flushed to the disk, then renamed.

    Raises:
        OutputError: it could not be written; what was there before still is.
    """
    growing = None
    try:
        growing = GrowingFile(path)
        growing.file.write(content)
        growing.complete()
    except OSError as error:
        raise OutputError(f"cannot write {path} ({len(content):,} bytes): {reason(error)}") from error
    finally:
        if growing:
            growing.discard()


class GrowingFile:
    """A file that grows beside `path`, and takes its place once it is complete.

    Attributes:
        file: to write to, binary.
        temporary: its path for now, for who writes by path.

    Raises:
        OSError: it cannot be made; `complete` too raises it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path = path.resolve()  # a link stays one
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, self.temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        self.file = os.fdopen(handle, "wb")

    def complete(self) -> None:
        """Replaces what was at the path before."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        os.chmod(self.temporary, 0o666 & ~_umask())  # mkstemp lets nobody else read it
        os.replace(self.temporary, self._path)

    def discard(self) -> None:
        """Forgets it, unless it is complete."""
        with contextlib.suppress(OSError):  # a full disk, once more
            self.file.close()
        Path(self.temporary).unlink(missing_ok=True)


def require_writable(path: Path) -> None:
    """Finds out now, not after hours of training, that `path` cannot be written.

    Raises:
        OutputError: its folder cannot be made or written to, or `path` itself is a folder or device.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder, name a file")
        if path.exists() and not path.is_file():  # /dev/null must not become a file
            raise OSError("it is no regular file")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(prefix=f".{path.name[:32]}.", dir=path.parent) as file:
            file.write(b"\0")
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError("it is read-only")
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot write {path}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """What an error of the operating system says, without its number and path."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "what should be its folder is a file"
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
