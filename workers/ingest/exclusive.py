"""Jobs that make something here instead of measuring what is on the Hub: each has a worker for itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from catalog.database import Database
from catalog.jobs.repository import attempts
from catalog.tables import Job, JobState
from workers.bases.residents import ResidentBases
from workers.ingest.fetcher import Fetcher

SMALLEST_STEP = 0.02  # of the progress; less is not stored

Report = Callable[[float], None]  # called with the part of a job that is done, from 0 to 1
Reporter = Callable[[Database, Job, int], Report]  # makes one for a job of a worker


def report_progress(database: Database, job: Job, worker_id: int) -> Report:
    """Store the progress of a job, for people to see."""
    stored = 0.0

    def report(progress: float) -> None:
        nonlocal stored
        if progress - stored >= SMALLEST_STEP:
            stored = progress
            with database.transaction() as session:
                attempts.advance(session, [job.id], worker_id, JobState.ENCODING, stored)

    return report


class JobRunner(ABC):
    """Runs the jobs of models of one source, one at a time, on the bases in memory."""

    title: ClassVar[str]  # of one such job, for people

    def __init__(
        self,
        database: Database,
        bases: ResidentBases,
        fetcher: Fetcher,
        worker_id: int,
        *,
        reporter: Reporter = report_progress,
    ) -> None:
        self._database = database
        self._bases = bases
        self._fetcher = fetcher
        self._worker_id = worker_id
        self._reporter = reporter

    @abstractmethod
    def run(self, job: Job) -> None:
        """Bring a claimed job to its end. Raises `CatalogError`s of every kind, and `Stopped`."""

    def _reports_on(self, job: Job) -> Report:
        return self._reporter(self._database, job, self._worker_id)
