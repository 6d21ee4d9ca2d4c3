"""Recovery of the jobs of dead workers."""

from __future__ import annotations

from catalog.database import Database
from catalog.jobs.repository import recovery
from catalog.jobs.repository.recovery import RecoveredJobs
from catalog.queue import enqueue_after_commit

MAX_MESSAGES_PER_SWEEP = 16  # a few are enough: a worker that receives one continues until the queue is empty


def recover(database: Database, *, requeue_after: float, max_worker_deaths: int) -> RecoveredJobs:
    """Requeue the jobs of workers without a heartbeat for `requeue_after` seconds, and enqueue notifications for them.

    A job that was with `max_worker_deaths` dead workers is quarantined. Safe to run in several processes at once.
    """
    with database.transaction() as session:
        recovered = recovery.recover(session, requeue_after, max_worker_deaths)
        for job_id in recovered.released[:MAX_MESSAGES_PER_SWEEP]:
            enqueue_after_commit(session, job_id)
    return recovered
