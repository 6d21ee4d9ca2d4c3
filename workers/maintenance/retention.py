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
PAGES_PER_STEP = 5  # of each kind; few, because a worker that stops waits for the step

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
        """Delete a few pages of each kind. True if there is more to delete."""
        with self._database.transaction() as session:
            if queues.is_paused(session, MAINTENANCE_QUEUE):
                return False
        swept = retention.sweep(self._database, self._retention, max_pages=PAGES_PER_STEP)
        deleted = {kind: count for kind, count in swept.deleted.items() if count}
        if deleted:
            log.info("deleted what has expired: %s", deleted)
        return not swept.complete
