"""An orderly stop in bounded time, regardless of what the process is doing."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import NoReturn

GRACE_SECONDS = 5.0  # for the work to reach its next step
SIGN_OFF_SECONDS = 1.5  # for the update in Postgres after that

log = logging.getLogger(__name__)


class OrderlyStop:
    """Ends the process `grace` seconds after `request`, if it has not ended before.

    Training, merging and encoding check for cancellation between two steps, but loading a base, one large matrix
    product or a stalled download cannot be interrupted. In that case `sign_off` is called, so that the claimed jobs are
    requeued without counting a worker death, and the process exits without waiting any longer.
    """

    def __init__(
        self,
        cancel_work: Callable[[], object],
        sign_off: Callable[[], object],
        activity: Callable[[], str],
        *,
        grace: float = GRACE_SECONDS,
    ) -> None:
        self._cancel_work = cancel_work
        self._sign_off = sign_off
        self._activity = activity
        self._grace = grace
        self._requested = False
        self._request_made = threading.Event()
        self._thread = threading.Thread(target=self._run, name="orderly-stop", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def request(self) -> None:
        """Request the stop and return at once. Safe in signal handlers, which may interrupt each other."""
        if not self._requested:
            self._requested = True
            self._request_made.set()

    def _run(self) -> None:
        self._request_made.wait()
        deadline = time.monotonic() + self._grace
        log.info("stopping after the current step of: %s (%.0f s at most)", self._activity(), self._grace)
        try:
            self._cancel_work()
        except Exception:  # the process must end in any case
            log.exception("cancelling the work failed")
        time.sleep(max(0.0, deadline - time.monotonic()))
        log.warning("giving up waiting for: %s", self._activity())
        end_process(self._sign_off)


def end_process(sign_off: Callable[[], object], status: int = 0) -> NoReturn:
    """End the process after `sign_off`, or without it if it takes longer than `SIGN_OFF_SECONDS`, whatever its other
    threads do.
    """
    last = threading.Timer(SIGN_OFF_SECONDS, os._exit, [1])
    last.daemon = True
    last.start()
    try:
        sign_off()
    except Exception:
        log.exception("this worker could not sign off; its jobs are requeued after the heartbeat timeout")
    os._exit(status)
