"""Liveness as a row in Postgres: Celery's solo pool answers no remote control while it works."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping

from catalog.database import Database
from catalog.errors import DatabaseUnavailable
from catalog.jobs.processes import identity
from catalog.jobs.repository import attempts, workers
from catalog.periodic import PeriodicThread

log = logging.getLogger(__name__)


class Heartbeat:
    """A thread that registers this process as a worker and beats every `interval` seconds, whatever else goes on.

    Each beat carries what `report` says of the worker, and is followed by `after`: this thread runs also while a task
    keeps the process busy for minutes, so it is where dead neighbors are noticed in time. It outlives every error: a
    worker without a heartbeat counts as dead, and its jobs with it.
    """

    def __init__(
        self,
        database: Database,
        device: str,
        interval: float,
        *,
        report: Callable[[], Mapping[str, object]] = dict,
        after: Callable[[], object] = lambda: None,
    ) -> None:
        self._database = database
        self._device = device
        self._interval = interval
        self._report = report
        self._after = after
        self._worker_id: int | None = None
        self._registered = threading.Event()
        self._thread = PeriodicThread("heartbeat", self._step, self._pause)

    def start(self) -> None:
        self._thread.start()

    def worker_id(self, timeout: float = 60) -> int:
        """Its id in the table of workers. Raises `DatabaseUnavailable` after `timeout` seconds without one."""
        self._registered.wait(timeout)
        if self._worker_id is None:
            raise DatabaseUnavailable("Postgres does not answer, so this worker is not registered yet.")
        return self._worker_id

    def stop(self) -> None:
        """End the thread and sign off."""
        self._thread.stop()
        self.sign_off()

    def sign_off(self) -> None:
        """Queue again what this worker still holds, without counting that as a death, and note that it is gone, so
        that nobody waits for its heartbeat to run out.
        """
        if self._worker_id is None:
            return
        try:
            with self._database.transaction() as session:
                attempts.release(session, [self._worker_id])
                workers.stop(session, self._worker_id)
        except DatabaseUnavailable:
            log.warning("Postgres is away: the sweeper will take this worker's jobs back")

    def _step(self) -> None:
        self._beat()
        self._after()

    def _pause(self) -> float:
        return self._interval if self._registered.is_set() else min(self._interval, 1)

    def _beat(self) -> None:
        with self._database.transaction() as session:
            if self._worker_id is None:
                worker_id = workers.register(session, socket.gethostname(), os.getpid(), self._device, identity())
            else:
                worker_id = self._worker_id
                workers.beat(session, worker_id, self._report())
        self._worker_id = worker_id
        self._registered.set()
