"""Takes the steps of reindexes beside the encoding. Every worker has such a thread; whoever holds the lock works.

All that it knows is in the reindex's row, so it may be killed at any moment.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from catalog.database import Database
from catalog.errors import CatalogError, DatabaseUnavailable
from catalog.hub_sync.repository import crawls
from catalog.periodic import PeriodicThread
from catalog.reindexes import readiness
from catalog.reindexes import service as reindex_service
from catalog.reindexes.repository import reindexes
from catalog.spaces.contract import Space
from catalog.tables import ReindexState, Stage

LOOK = 1.0  # seconds between looks at what there is to do
BUILD_LOOK = 5.0  # seconds between looks at what is being built

log = logging.getLogger(__name__)


class Reindexer:
    """Makes jobs while fewer than `queue` wait for a worker; `contract` is what this worker measures. Spaces of more
    than `exact_bytes` bytes of vectors need an index before they may serve.
    """

    def __init__(
        self,
        database: Database,
        contract: Sequence[Space],
        *,
        queue: int,
        exact_bytes: int,
        build_look: float = BUILD_LOOK,
    ) -> None:
        self._database = database
        self._contract = contract
        self._queue = queue
        self._exact_bytes = exact_bytes
        self._build_look = build_look
        self._looked = -build_look
        self._thread = PeriodicThread("reindexer", self.step, LOOK)

    def start(self) -> None:
        self._thread.start()

    def give_up(self) -> None:
        """Begin no further step; does not wait for the one under way."""
        self._thread.give_up()

    def stop(self) -> None:
        """Begin no further step, and wait for the end of the one under way."""
        self._thread.stop()

    def step(self) -> bool:
        """A page of each reindex. False where there is nothing to do now, or another process does it."""
        with self._database.transaction() as lead:
            found = reindexes.open_ones(lead)
            if not found or not reindexes.try_lead(lead):
                return False
            return any([self._take(reindex_id) for reindex_id in found])

    def _take(self, reindex_id: int) -> bool:
        try:
            return self._work(reindex_id)
        except DatabaseUnavailable:
            raise
        except CatalogError as error:
            log.warning("reindex %s: %s: %s", reindex_id, error.code, error)
            if not error.transient:
                with self._database.transaction() as session:
                    reindexes.fail(session, reindex_id, error)
            return False

    def _work(self, reindex_id: int) -> bool:
        database = self._database
        with database.transaction() as session:
            row = reindexes.get(session, reindex_id)
        if row.stage == Stage.DISCARDING:
            return reindex_service.discard(database, reindex_id)
        if row.stage == Stage.QUEUEING:
            return self._has_room() and reindex_service.queue(database, reindex_id, self._contract)
        if row.stage == Stage.MEASURING:
            return reindex_service.await_jobs(database, reindex_id)
        if row.state not in (ReindexState.RUNNING, ReindexState.READY):
            return False
        more = reindex_service.carry(database, reindex_id)  # also what comes while it is built and waits
        if row.stage == Stage.BUILDING and not more and time.monotonic() - self._looked >= self._build_look:
            self._looked = time.monotonic()
            readiness.build(database, reindex_id, self._exact_bytes)
        return more or row.stage == Stage.CARRYING

    def _has_room(self) -> bool:
        with self._database.transaction() as session:
            return crawls.waiting_jobs(session, self._queue) + reindex_service.PAGE <= self._queue
