"""Deadlines of the stages of a job, and the end of a process in which a stage does not return.

A stage that is over its deadline is cancelled (`cancellation`): at its next check it raises `DeadlineExceeded`, and its
jobs are retried. Native code checks nothing, so the watchdog ends the process if the stage is still running after a
grace period. Native code that holds the interpreter's lock stops the watchdog itself, and with it all Python code; then
a timer of `faulthandler`, which needs no lock, ends the process.
"""

from __future__ import annotations

import faulthandler
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

from catalog.errors import DeadlineExceeded, DownloadStopped
from catalog.threads.periodic_thread import PeriodicThread
from workers.process.cancellation import Cancelled, cancel_scope, current_check

GRACE_SECONDS = 60.0  # for a stage over its deadline to reach its next check
POLL_INTERVAL = 1.0  # seconds between checks of the watchdog
STALL_SECONDS = 600.0  # without a check, because no Python code runs


class Stage(StrEnum):
    """What a job is doing. The setting of its deadline is named after it."""

    FETCH = "fetch"
    LOAD = "load"
    FORWARD = "forward"
    TRAIN = "train"
    SELECT = "select"
    MERGE = "merge"


@dataclass(frozen=True)
class Deadlines:
    """Seconds that a stage may take for one job, or for one group of jobs that are encoded together."""

    fetch: float = 21_600.0
    load: float = 1_800.0
    forward: float = 1_800.0
    train: float = 7_200.0
    select: float = 7_200.0
    merge: float = 3_600.0


class RunningStage:
    """A stage that runs now, in one thread. Its clock stands still while a stage within it runs."""

    def __init__(self, stage: Stage, limit: float, job_ids: Collection[int]) -> None:
        self.stage = stage
        self.limit = limit
        self.job_ids = frozenset(job_ids)
        self._ends_at: float | None = time.monotonic() + limit
        self._left = limit

    def overdue(self, grace: float = 0.0) -> bool:
        """Whether the stage is over its deadline by more than `grace` seconds."""
        ends_at = self._ends_at
        return ends_at is not None and time.monotonic() > ends_at + grace

    def pause(self) -> None:
        if self._ends_at is not None:
            self._left, self._ends_at = self._ends_at - time.monotonic(), None

    def resume(self) -> None:
        self._ends_at = time.monotonic() + self._left

    def error(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"The stage {self.stage} took longer than {self.limit:g} s. It is tried again; if it is only slow, raise "
            f"DELTADEX_{self.stage.upper()}_DEADLINE or use a faster worker."
        )


_current: ContextVar[RunningStage | None] = ContextVar("stage", default=None)


class Stages:
    """The running stages of a worker, and their watchdog. Thread-safe.

    `on_hang` is called with a stage that is over its deadline by more than `grace` seconds; it ends the process.
    """

    def __init__(
        self,
        deadlines: Deadlines | None = None,
        *,
        on_hang: Callable[[RunningStage], object] = lambda stage: None,
        grace: float = GRACE_SECONDS,
        poll_interval: float = POLL_INTERVAL,
        stall: float = STALL_SECONDS,
    ) -> None:
        self._deadlines = deadlines or Deadlines()
        self._on_hang = on_hang
        self._grace = grace
        self._stall = stall
        self._running: set[RunningStage] = set()
        self._lock = threading.Lock()
        self._thread = PeriodicThread("watchdog", self._check, poll_interval)

    def start(self) -> None:
        """Start the watchdog. Without it, a stage that reaches no check runs on."""
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop()
        faulthandler.cancel_dump_traceback_later()

    @contextmanager
    def run(self, stage: Stage, job_ids: Sequence[int] | None = None) -> Iterator[None]:
        """Within the context, the thread is in `stage`, for `job_ids` (None: those of the stage around it).

        Raises `DeadlineExceeded` in place of the `Cancelled` or `DownloadStopped` that ends the stage once it is over
        its deadline.
        """
        outer = _current.get()
        if job_ids is None:
            job_ids = list(outer.job_ids) if outer else []
        running = RunningStage(stage, getattr(self._deadlines, stage.value), job_ids)
        cancelled_outside = current_check()
        if outer is not None:
            outer.pause()
        token = _current.set(running)
        with self._lock:
            self._running.add(running)
        try:
            with cancel_scope(lambda: running.overdue() or cancelled_outside()):
                yield
        except (Cancelled, DownloadStopped) as error:
            if running.overdue() and not cancelled_outside():
                raise running.error() from error
            raise
        finally:
            with self._lock:
                self._running.discard(running)
            _current.reset(token)
            if outer is not None:
                outer.resume()

    def _check(self) -> None:
        if sys.__stderr__ is not None:  # Celery's own `sys.stderr` is no file
            faulthandler.dump_traceback_later(self._stall, exit=True, file=sys.__stderr__)
        with self._lock:
            hanging = [stage for stage in self._running if stage.overdue(self._grace)]
        for stage in hanging:
            self._on_hang(stage)
