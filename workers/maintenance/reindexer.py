"""The thread that runs reindexes. Every worker has one; only the thread that holds the lock works.

All progress is in the row of the reindex, so the worker may be killed at any moment.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from catalog.database import Database
from catalog.errors import CatalogError, DatabaseUnavailable
from catalog.hub_sync.repository import crawls
from catalog.reindexes import readiness
from catalog.reindexes import service as reindex_service
from catalog.reindexes.repository import reindexes
from catalog.spaces.contract import Space
from catalog.tables import ReindexState, Stage
from catalog.threads.periodic_thread import PeriodicThread

INTERVAL = 1.0  # seconds between steps while there is nothing to do
READINESS_INTERVAL = 5.0  # seconds between checks for missing artifacts

log = logging.getLogger(__name__)


class Reindexer:
    """Runs reindexes page by page, in a thread.

    It creates jobs only while fewer than `max_queued` jobs are queued. `contract` has the spaces, without a base, that
    this worker measures. A space with more than `exact_bytes` bytes of vectors needs an index before it may serve.
    """

    def __init__(
        self,
        database: Database,
        contract: Sequence[Space],
        *,
        max_queued: int,
        exact_bytes: int,
        readiness_interval: float = READINESS_INTERVAL,
    ) -> None:
        self._database = database
        self._contract = contract
        self._max_queued = max_queued
        self._exact_bytes = exact_bytes
        self._readiness_interval = readiness_interval
        self._checked_at = -readiness_interval
        self._thread = PeriodicThread("reindexer", self.step, INTERVAL)

    def start(self) -> None:
        self._thread.start()

    def request_stop(self) -> None:
        """Start no further step. Does not wait for the current one."""
        self._thread.request_stop()

    def stop(self) -> None:
        """Start no further step, and wait for the current one to end."""
        self._thread.stop()

    def step(self) -> bool:
        """Run a page of each reindex. False if there is nothing to do now, or if another process holds the lock."""
        with self._database.transaction() as lock_session:
            reindex_ids = reindexes.list_open(lock_session)
            if not reindex_ids or not reindexes.try_lock(lock_session):
                return False
            return any([self._run_or_fail(reindex_id) for reindex_id in reindex_ids])

    def _run_or_fail(self, reindex_id: int) -> bool:
        try:
            return self._run_page(reindex_id)
        except DatabaseUnavailable:
            raise
        except CatalogError as error:
            log.warning("reindex %s: %s: %s", reindex_id, error.code, error)
            if not error.transient:
                with self._database.transaction() as session:
                    reindexes.fail(session, reindex_id, error)
            return False

    def _run_page(self, reindex_id: int) -> bool:
        database = self._database
        with database.transaction() as session:
            row = reindexes.get(session, reindex_id)
        if row.stage == Stage.DISCARDING:
            return reindex_service.discard_page(database, reindex_id)
        if row.stage == Stage.QUEUEING:
            return self._has_room() and reindex_service.queue_page(database, reindex_id, self._contract)
        if row.stage == Stage.MEASURING:
            return reindex_service.finish_measuring(database, reindex_id)
        if row.state not in (ReindexState.RUNNING, ReindexState.READY):
            return False
        has_more = reindex_service.backfill_spaces(database, reindex_id)  # also after that stage, for new vectors
        check_due = time.monotonic() - self._checked_at >= self._readiness_interval
        if row.stage == Stage.BUILDING and not has_more and check_due:
            self._checked_at = time.monotonic()
            readiness.make_ready(database, reindex_id, self._exact_bytes)
        return has_more or row.stage == Stage.BACKFILLING

    def _has_room(self) -> bool:
        with self._database.transaction() as session:
            return (
                crawls.count_queued_jobs(session, self._max_queued) + reindex_service.JOBS_PER_PAGE <= self._max_queued
            )
