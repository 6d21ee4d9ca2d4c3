"""A background thread that runs a step periodically."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from catalog.errors import CatalogError

log = logging.getLogger(__name__)


class PeriodicThread:
    """A thread that calls `step` when it is started, and again `interval` seconds after each call has returned, or
    immediately if the call returned a true value because there is more to do.

    Errors do not end the thread: they are logged, and the next step runs as usual.
    """

    def __init__(self, name: str, step: Callable[[], object], interval: float | Callable[[], float]) -> None:
        self._name = name
        self._step = step
        self._interval = interval
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def stopping(self) -> bool:
        """Whether a stop was requested: the current step is the last one."""
        return self._stopping.is_set()

    def request_stop(self) -> None:
        """Prevent further steps, without waiting for the current one."""
        self._stopping.set()

    def stop(self) -> None:
        """Prevent further steps, and wait for the current one to end."""
        self.request_stop()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self.stopping:
            if not self._run_step():
                self._stopping.wait(self._interval() if callable(self._interval) else self._interval)

    def _run_step(self) -> bool:
        """Run one step, logging its error. True if there is more to do."""
        try:
            return bool(self._step())
        except CatalogError as error:
            log.warning("%s failed and will try again: %s: %s", self._name, error.code, error)
        except BaseException:  # native code may raise a bare BaseException; signals do not interrupt this thread
            log.exception("Unexpected error in %s; continuing", self._name)
        return False
