"""Selection of the jobs that a worker claims next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from catalog.database import Database
from catalog.jobs.repository import claims, workers
from catalog.tables import Job
from workers.bases.residents import ResidentBases


@dataclass(frozen=True)
class BatchPolicy:
    """How a worker batches jobs. All times in seconds."""

    size: int = 8  # jobs in one claim
    max_duration: float = 60.0  # of one `Pipeline.ingest`; then the worker reads its other messages
    max_wait: float = 120.0  # after which a job is no longer passed over for jobs whose base is in memory
    max_silence: float | None = None  # since the worker's own last heartbeat, after which it claims nothing
    patience: float = 10.0  # that a batch waits for a fetch; slower ones come with a later batch
    max_overtime: float = 300.0  # of `Pipeline.ingest` for slow fetches; then their jobs are requeued


class Claimer:
    """Claims one batch of jobs after another, preferring jobs whose base is in memory. Claims nothing once `stopping()`
    is true. Not thread-safe.
    """

    def __init__(
        self,
        database: Database,
        bases: ResidentBases,
        worker_id: int,
        batching: BatchPolicy,
        stopping: Callable[[], bool],
    ) -> None:
        self._database = database
        self._bases = bases
        self._worker_id = worker_id
        self._batching = batching
        self._stopping = stopping
        self._postponed: int | None = None  # an exclusive job that was next while the worker had other jobs

    @property
    def exclusive_waits(self) -> bool:
        """Whether an exclusive job was next at the last claim, which did not allow it."""
        return self._postponed is not None

    def claim(self, *, allow_exclusive: bool) -> list[Job]:
        """Claim a batch, or an exclusive job if it is next and allowed. If it is next but not allowed, claim nothing;
        the next call that allows it will claim it.
        """
        while not self._stopping():
            with self._database.transaction() as session:
                job_id, self._postponed = self._postponed if allow_exclusive else None, None
                if job_id is None:
                    due = claims.find_next_due(session, self._bases.repos, self._batching.max_wait)
                    if due is None:
                        return []
                    if due.exclusive and not allow_exclusive:
                        self._postponed = due.job_id
                        return []
                    job_id = due.job_id
                silence = self._batching.max_silence
                jobs = claims.claim(session, job_id, self._worker_id, self._batching.size, max_silence=silence)
                if jobs or not (silence is None or workers.is_beating(session, self._worker_id, silence)):
                    return jobs
        return []
