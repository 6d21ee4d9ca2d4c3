"""A thread of each worker that deletes what has expired."""

from __future__ import annotations

import logging

from catalog.database import Database
from catalog.jobs.repository import queues
from catalog.maintenance import retention
from catalog.queue import MAINTENANCE_QUEUE
from catalog.settings import Settings
from catalog.threads.periodic_thread import PeriodicThread

INTERVAL = 3_600.0  # seconds

log = logging.getLogger(__name__)


class RetentionSweeper:
    """Deletes what is older than the settings say, when the worker starts and every hour, unless the queue
    `maintenance` is paused. Workers that do so at once do not wait for each other.
    """

    def __init__(self, database: Database, conf: Settings) -> None:
        self._database = database
        self._retention = retention.retention_of(conf)
        self._thread = PeriodicThread("retention", self.step, INTERVAL)

    def start(self) -> None:
        self._thread.start()

    def request_stop(self) -> None:
        self._thread.request_stop()

    def stop(self) -> None:
        self._thread.stop()

    def step(self) -> bool:
        """Delete some pages of each kind, and no further page once the thread is to stop. True if there is more."""
        with self._database.transaction() as session:
            if queues.is_paused(session, MAINTENANCE_QUEUE):
                return False
        swept = retention.sweep(self._database, self._retention, should_stop=lambda: self._thread.stopping)
        deleted = {kind: count for kind, count in swept.deleted.items() if count}
        if deleted:
            log.info("deleted what has expired: %s", deleted)
        return not swept.complete
