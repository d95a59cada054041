"""Files that survive a crash: forced to the disk, renamed into place, locked by one process."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import Self

from collectors.errors import SinkError

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def sync(path: Path) -> None:
    """Force a file's content, or a directory's entries, to the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows has no handle for a directory
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(path: Path, target: Path) -> None:
    """Give the finished file `path` its name `target`, and make the name last."""
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(path, target)
    sync(target.parent)


def exchange(one: Path, other: Path) -> None:
    """Swap two directories in one atomic step; `OSError` where the file system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        raise OSError(errno.ENOSYS, "the system has no renameat2, which Linux has")
    names = os.fsencode(one), os.fsencode(other)
    if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one), None, str(other))


class Lock:
    """An exclusive lock on a file or directory, held until `release` or the process ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, *, wait: bool) -> bool:
        """Whether the lock is ours now; without `wait` not if another process holds it."""
        if os.name == "nt":
            return True  # live writing needs Linux (`exchange`), and nothing else needs locks
        import fcntl

        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Let others have it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire(wait=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def cannot_write(path: Path, error: OSError, remedy: str) -> SinkError:
    """The error for an output that the operating system refuses."""
    return SinkError(f"{path}: cannot write there: {error.strerror or error}; {remedy}")
