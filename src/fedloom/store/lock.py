"""Locks of files: held for as long as a process has a folder, or for moments, many times a second.

The first is `filelock`'s; the second the operating system's own, without what a library adds, of the same file.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from filelock import FileLock, Timeout

from ..core.errors import RunError, StorageError

LOOK_S = 0.005


@contextmanager
def holding(path: Path, held: str, patience_s: float = 0.5) -> Iterator[None]:
    """Hold a file while the block runs; the lock goes with the process.

    Raises `RunError`, which says `held`, if somebody else holds it, and `StorageError` if it cannot be locked.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=patience_s)  # somebody may just be looking whether it is free
    except Timeout as error:
        raise RunError(held) from error
    except OSError as error:
        raise StorageError(
            f"{path} cannot be locked: {error.strerror}; let this user write in its folder, or take another."
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def locked(path: Path, patience_s: float) -> Iterator[None]:
    """Hold a file that processes and threads take one after the other; it is made where it is missing.

    Raises `TimeoutError` if somebody else holds it for so many seconds, `OSError` if it cannot be locked.
    """
    if sys.platform == "win32":
        with FileLock(path, timeout=patience_s):
            yield
        return
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _take(descriptor, path, patience_s)
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a process that was forked meanwhile does not keep it
        os.close(descriptor)


def _take(descriptor: int, path: Path, patience_s: float) -> None:
    import fcntl

    until = monotonic() + patience_s
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() >= until:
                raise TimeoutError(f"{path} was not free for {patience_s:g} s") from None
            sleep(LOOK_S)
