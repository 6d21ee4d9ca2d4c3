"""Locks between processes that share a folder. The kernel releases the locks of a process that is killed."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

POLL_INTERVAL = 0.05  # seconds between tries


class FileLocks:
    """Shared locks on repo folders of the download cache, which keep them from being evicted until `release`."""

    def __init__(self) -> None:
        self._held: dict[Path, int] = {}
        self._mutex = threading.Lock()

    def acquire(self, lock: Path) -> None:
        with self._mutex:
            if lock not in self._held:
                self._held[lock] = acquire_lock(lock, exclusive=False)

    def release(self) -> None:
        with self._mutex:
            while self._held:
                os.close(self._held.popitem()[1])

    def __enter__(self) -> FileLocks:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def acquire_lock(path: Path, *, exclusive: bool, on_wait: Callable[[], None] = lambda: None) -> int:
    """The descriptor of the locked file, created if it is missing. `on_wait` is called between tries and may raise."""
    while (descriptor := try_lock(path, exclusive=exclusive)) is None:
        on_wait()
        time.sleep(POLL_INTERVAL)
    return descriptor


def try_lock(path: Path, *, exclusive: bool) -> int | None:
    """The descriptor of the locked file, to be closed by the caller; None if another process has the lock."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except FileNotFoundError:  # the folder was evicted between the two calls
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):  # otherwise the file was moved or deleted
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
