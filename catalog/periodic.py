"""Work that a process does again and again beside everything else."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from catalog.errors import CatalogError

log = logging.getLogger(__name__)


class PeriodicThread:
    """A thread that calls `step` once it is started and then `interval` seconds after each call's end, or at once after
    a call that returned true: there is more to do.

    It outlives every error: what a step raises is logged, and the next one comes all the same.
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
        """Whether this step is the last one."""
        return self._stopping.is_set()

    def give_up(self) -> None:
        """Begin no further step; does not wait for the one under way."""
        self._stopping.set()

    def stop(self) -> None:
        """Begin no further step, and wait for the end of the one under way."""
        self.give_up()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self.stopping:
            if not self._outlived_step():
                self._stopping.wait(self._interval() if callable(self._interval) else self._interval)

    def _outlived_step(self) -> bool:
        try:
            return bool(self._step())
        except CatalogError as error:
            log.warning("the %s waits: %s: %s", self._name, error.code, error)
        except BaseException:  # native code throws what is no `Exception`; no signal interrupts this thread
            log.exception("the %s goes on after an error that has no name", self._name)
        return False
