"""What keeps jobs from being lost: messages may vanish and workers may die, the rows in Postgres stay."""

from __future__ import annotations

from dataclasses import dataclass

from catalog.database import Database
from catalog.queue import ring_after_commit
from catalog.repository import jobs

RINGS_A_SWEEP = 16  # one bell is enough for a worker to go through all that waits


@dataclass(frozen=True)
class Sweep:
    """The jobs taken from dead workers, and the queued ones whose message was rung again."""

    released: list[int]
    rung: list[int]


def sweep(database: Database, *, heartbeat_limit: float, ring_again_after: float, max_attempts: int) -> Sweep:
    """One round. Both limits in seconds. Safe to run in any number of processes at once.

    A job that was with a dead worker for the `max_attempts`th time is failed: it may be what killed them.
    """
    with database.transaction() as session:
        jobs.fail_deadly(session, heartbeat_limit, max_attempts)
        released = jobs.release_dead(session, heartbeat_limit)
        rung = jobs.due_for_ringing(session, ring_again_after, RINGS_A_SWEEP)
        for job_id in (*released, *rung):
            ring_after_commit(session, job_id)
    return Sweep(released, rung)
