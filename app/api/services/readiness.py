"""What `/readyz` answers from: the state of the dependencies, checked in the background."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from catalog.database import Database
from catalog.errors import DatabaseUnavailable
from catalog.index import service as index_service
from catalog.index.follower import IndexFollower
from catalog.jobs import service as job_service
from catalog.queue import broker_answers
from catalog.threads.periodic_thread import PeriodicThread

INTERVAL = 1.0  # seconds between checks
MAX_AGE = 15.0  # seconds after which a check says nothing any more: the next one waits for a server

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dependencies:
    """Whether Postgres and Redis answer, problems of the index in sentences, and the workers whose Hub token is
    invalid, as `host:pid`. None: not known while Postgres does not answer.
    """

    database: bool
    broker: bool
    index_problems: tuple[str, ...]
    affected_workers: tuple[str, ...] | None


UNKNOWN = Dependencies(database=False, broker=False, index_problems=(), affected_workers=None)


class Readiness:
    """Checks the dependencies every `INTERVAL` seconds, on a connection that no request uses."""

    def __init__(
        self,
        database: Database,
        index: IndexFollower,
        heartbeat_timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._index = index
        self._heartbeat_timeout = heartbeat_timeout
        self._clock = clock
        self._checked: tuple[float, Dependencies] | None = None  # when, and what was found
        self._thread = PeriodicThread("readiness", self.check, INTERVAL)

    def start(self) -> None:
        """Check once, then go on in the background."""
        try:
            self.check()
        except Exception:  # the background goes on; until it succeeds, the process is not ready
            log.exception("Unexpected error in the first readiness check")
        self._thread.start()

    def stop(self) -> None:
        self._thread.stop()

    @property
    def dependencies(self) -> Dependencies:
        """What the last check found, without waiting."""
        checked = self._checked
        return checked[1] if checked is not None and self._clock() - checked[0] <= MAX_AGE else UNKNOWN

    @property
    def index_loaded(self) -> bool:
        return self._index.loaded

    def check(self) -> None:
        """Check all dependencies now."""
        broker = broker_answers()
        reports = self._index.report()
        problems = [f"space {report.space_id}: {report.problem}" for report in reports if report.problem]
        try:
            errors = index_service.build_errors(self._database, [report.space_id for report in reports])
            workers, _ = job_service.list_workers(self._database, self._heartbeat_timeout)
        except DatabaseUnavailable:
            found = Dependencies(False, broker, tuple(problems), None)
        else:
            problems += [f"space {space_id}: the last build failed: {error}" for space_id, error in errors.items()]
            affected = [f"{worker.host}:{worker.pid}" for worker in workers if worker.status.get("hub_token_invalid")]
            found = Dependencies(True, broker, tuple(problems), tuple(affected))
        self._checked = self._clock(), found
