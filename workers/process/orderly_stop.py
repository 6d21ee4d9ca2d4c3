"""An orderly stop in bounded time, whatever the process is in the middle of."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

GRACE = 5.0  # seconds for the work to reach its next step
SIGN_OFF = 1.5  # seconds more for Postgres to hear of it

log = logging.getLogger(__name__)


class OrderlyStop:
    """Ends the process `grace` seconds after `request` where it has not ended by itself by then.

    Training, merging and encoding ask between two steps whether to go on, but a base being loaded, one large matrix or
    a silent download does not. Then `sign_off` is called, so that the jobs in hand are queued again and count no
    death, and the process ends without waiting any longer.
    """

    def __init__(
        self,
        give_up: Callable[[], object],
        sign_off: Callable[[], object],
        activity: Callable[[], str],
        *,
        grace: float = GRACE,
    ) -> None:
        self._give_up = give_up
        self._sign_off = sign_off
        self._activity = activity
        self._grace = grace
        self._requested = False
        self._told = threading.Event()
        self._thread = threading.Thread(target=self._run, name="orderly-stop", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def request(self) -> None:
        """For handlers of signals, which may interrupt each other: asks for the stop and returns at once."""
        if not self._requested:
            self._requested = True
            self._told.set()

    def _run(self) -> None:
        self._told.wait()
        deadline = time.monotonic() + self._grace
        log.info("stopping after the current step of: %s (%.0f s at most)", self._activity(), self._grace)
        try:
            self._give_up()
        except Exception:  # the process must end all the same
            log.exception("not everything could be told to stop")
        time.sleep(max(0.0, deadline - time.monotonic()))
        log.warning("not waiting any longer for: %s", self._activity())
        last = threading.Timer(SIGN_OFF, os._exit, [1])
        last.daemon = True
        last.start()
        try:
            self._sign_off()
        except Exception:
            log.exception("this worker could not sign off; its jobs are taken back once its heartbeat runs out")
        os._exit(0)
