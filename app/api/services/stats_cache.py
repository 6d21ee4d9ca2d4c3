"""The statistics of the catalog, which are counted over all models and jobs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from catalog.database import Database
from catalog.jobs import service as job_service
from catalog.jobs.service import Stats

SLOW = 0.25  # seconds of counting from which the counts are kept
KEEP_FACTOR = 20  # times as long as the counting took, so that it takes at most a twentieth of the time
MAX_KEPT = 10.0  # seconds


class StatsCache:
    """Counts for one request at a time, and keeps counts that took long for the next ones."""

    def __init__(
        self, database: Database, heartbeat_timeout: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._heartbeat_timeout = heartbeat_timeout
        self._clock = clock
        self._lock = threading.Lock()
        self._stats: Stats | None = None
        self._kept_until = 0.0

    def get(self) -> Stats:
        """Raises `DatabaseUnavailable`."""
        with self._lock:
            started = self._clock()
            if self._stats is None or started >= self._kept_until:
                self._stats = job_service.get_stats(self._database, self._heartbeat_timeout)
                ended = self._clock()
                seconds = ended - started
                self._kept_until = ended + (min(KEEP_FACTOR * seconds, MAX_KEPT) if seconds >= SLOW else 0)
            return self._stats
