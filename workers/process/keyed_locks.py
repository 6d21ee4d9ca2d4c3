"""A lock for each key, within one process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from workers.process.cancellation import raise_if_cancelled

POLL_INTERVAL = 0.2  # seconds between calls of `on_wait`


class KeyedLocks:
    """Locks that exist while they are held or waited for. Thread-safe; not reentrant."""

    def __init__(self) -> None:
        self._held: set[Hashable] = set()
        self._released = threading.Condition()

    @contextmanager
    def hold(self, key: Hashable, on_wait: Callable[[], None] = raise_if_cancelled) -> Iterator[None]:
        """Hold the lock of a key. `on_wait` is called while another thread holds it, and may raise to give up."""
        while not self._acquire(key):
            on_wait()
        try:
            yield
        finally:
            with self._released:
                self._held.remove(key)
                self._released.notify_all()

    def _acquire(self, key: Hashable) -> bool:
        with self._released:
            if not self._released.wait_for(lambda: key not in self._held, POLL_INTERVAL):
                return False
            self._held.add(key)
            return True
