"""Which jobs a worker takes on next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from catalog.database import Database
from catalog.jobs.repository import claims
from catalog.tables import Job
from workers.bases.residents import ResidentBases


@dataclass(frozen=True)
class Pace:
    """How much a worker takes on: `batch` jobs at once; after `drain` seconds it looks at its other messages; a job
    waits at most `patience` seconds because others have their base in memory.
    """

    batch: int = 8
    drain: float = 60.0
    patience: float = 120.0


class Claimer:
    """Claims a batch of jobs after the other, those of the bases in memory first; none once the worker is `stopping`.

    Called from one thread at a time.
    """

    def __init__(
        self, database: Database, bases: ResidentBases, worker_id: int, pace: Pace, stopping: Callable[[], bool]
    ) -> None:
        self._database = database
        self._bases = bases
        self._worker_id = worker_id
        self._pace = pace
        self._stopping = stopping
        self._put_off: int | None = None  # a job that wants to be alone, and was next while others were in hand

    def claim(self, *, alone: bool) -> list[Job]:
        """A batch, or with `alone` one that wants that; without it, such a one waits until nothing is in hand."""
        while not self._stopping():
            with self._database.transaction() as session:
                first, self._put_off = self._put_off if alone else None, None
                if first is None:
                    due = claims.next_due(session, self._bases.repos, self._pace.patience)
                    if due is None:
                        return []
                    if due.alone and not alone:
                        self._put_off = due.job_id
                        return []
                    first = due.job_id
                if claimed := claims.claim(session, first, self._worker_id, self._pace.batch):
                    return claimed
        return []
