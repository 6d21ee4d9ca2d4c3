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

TOLD = 0.02  # of the progress; less is not stored


class LoneWork(ABC):
    """What is done with the jobs of models of one source, one at a time, on the bases in memory."""

    title: ClassVar[str]  # of one such job, for people

    def __init__(self, database: Database, bases: ResidentBases, fetcher: Fetcher, worker_id: int) -> None:
        self._database = database
        self._bases = bases
        self._fetcher = fetcher
        self._worker_id = worker_id

    @abstractmethod
    def do(self, job: Job) -> None:
        """Bring a claimed job to its end. Raises `CatalogError`s of every kind, and `Stopped`."""


def teller(database: Database, job: Job, worker_id: int) -> Callable[[float], None]:
    """To be called with the part of a job that is done, from 0 to 1: people see it."""
    told = 0.0

    def tell(progress: float) -> None:
        nonlocal told
        if progress - told >= TOLD:
            told = progress
            with database.transaction() as session:
                attempts.advance(session, [job.id], worker_id, JobState.ENCODING, told)

    return tell
