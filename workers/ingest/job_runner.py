"""The interface of job runners, which run exclusive jobs: tasks, selections and merges."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from catalog.archives.limits import NO_LIMITS, ArchiveLimits
from catalog.database import Database
from catalog.jobs.repository import attempts
from catalog.tables import Job, JobState
from workers.bases.residents import ResidentBases
from workers.ingest.fetcher import Fetcher
from workers.process.stages import Stage

MIN_PROGRESS_STEP = 0.02  # smaller steps of progress are not stored

Report = Callable[[float], None]  # called with the share of a job that is done, from 0 to 1
Reporter = Callable[[Database, Job, int], Report]  # creates the `Report` for a job of a worker


def report_progress(database: Database, job: Job, worker_id: int) -> Report:
    """A `Report` that stores the progress on the job."""
    stored = 0.0

    def report(progress: float) -> None:
        nonlocal stored
        if progress - stored >= MIN_PROGRESS_STEP:
            stored = progress
            with database.transaction() as session:
                attempts.update_progress(session, [job.id], worker_id, JobState.ENCODING, stored)

    return report


@dataclass(eq=False)
class JobRunner(ABC):
    """Runs the jobs of one source, one at a time, on the bases in memory."""

    title: ClassVar[str]  # what such a job does, shown as the worker's activity
    stage: ClassVar[Stage]  # whose deadline its run has

    database: Database
    bases: ResidentBases
    fetcher: Fetcher
    worker_id: int
    reporter: Reporter = field(default=report_progress, kw_only=True)
    archive_limits: ArchiveLimits = field(default=NO_LIMITS, kw_only=True)

    @abstractmethod
    def run(self, job: Job) -> None:
        """Run a claimed job to its end. Raises any `CatalogError`, and `Cancelled`."""

    def _reporter_for(self, job: Job) -> Report:
        return self.reporter(self.database, job, self.worker_id)
