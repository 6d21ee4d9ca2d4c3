"""The periodic sweep: requeues the jobs of dead workers, sends lost notifications again, deletes what has expired."""

from __future__ import annotations

from dataclasses import dataclass

from catalog.audit import repository as audit
from catalog.auth.hub_tokens import DAY, token_expired
from catalog.database import Database
from catalog.jobs.recovery import MAX_MESSAGES_PER_SWEEP, recover
from catalog.jobs.repository import events as job_events
from catalog.jobs.repository import queues, recovery
from catalog.queue import ENCODE_QUEUE, enqueue_after_commit
from catalog.tasks import repository as tasks

MAX_EVENTS_DELETED_PER_SWEEP = 20_000  # events


@dataclass(frozen=True)
class SweepResult:
    """Job ids: `released` were requeued from dead workers, `enqueued` got their notification again."""

    released: list[int]
    enqueued: list[int]


def sweep(
    database: Database,
    *,
    requeue_after: float,
    redeliver_after: float,
    max_worker_deaths: int,
    event_retention: float,
    audit_retention: float = 90 * DAY,
    token_max_age: float = DAY,
) -> SweepResult:
    """Recover the jobs of dead workers, send lost notifications again, and delete expired events, audit entries, task
    examples and Hub tokens. All times in seconds. Safe to run in several processes at once.
    """
    recovered = recover(database, requeue_after=requeue_after, max_worker_deaths=max_worker_deaths)
    enqueued: list[int] = []
    with database.transaction() as session:
        recovery.delete_expired_tokens(session, token_max_age, token_expired())
    with database.transaction() as session:
        if not queues.is_paused(session, ENCODE_QUEUE):
            enqueued = recovery.start_redelivery(session, redeliver_after, MAX_MESSAGES_PER_SWEEP)
        for job_id in enqueued:
            enqueue_after_commit(session, job_id)
        tasks.delete_examples(session)
        job_events.delete_expired(session, event_retention, MAX_EVENTS_DELETED_PER_SWEEP)
        audit.delete_expired(session, audit_retention, MAX_EVENTS_DELETED_PER_SWEEP)
    return SweepResult(recovered.released, enqueued)
