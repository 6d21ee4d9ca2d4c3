"""Locks between processes that share a folder. The kernel lets go of what a killed process held."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

GLANCE = 0.05  # seconds between tries


class Hold:
    """Keeps folders of the downloads from being evicted until it is released; several may hold the same."""

    def __init__(self) -> None:
        self._held: dict[Path, int] = {}
        self._mutex = threading.Lock()

    def take(self, lock: Path) -> None:
        with self._mutex:
            if lock not in self._held:
                self._held[lock] = wait_for(lock, exclusive=False)

    def release(self) -> None:
        with self._mutex:
            while self._held:
                os.close(self._held.popitem()[1])

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def wait_for(path: Path, *, exclusive: bool, glance: Callable[[], None] = lambda: None) -> int:
    """The descriptor of a locked file, which is made where it is missing; `glance` may raise to end the wait."""
    while (found := try_lock(path, exclusive=exclusive)) is None:
        glance()
        time.sleep(GLANCE)
    return found


def try_lock(path: Path, *, exclusive: bool) -> int | None:
    """The descriptor of the locked file, to be closed; None where another one has it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except FileNotFoundError:  # whoever evicts took the folder away in between
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):  # else it was moved or deleted meanwhile
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
