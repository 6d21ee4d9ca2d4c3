"""What keeps jobs from being lost: messages may vanish and workers may die, the rows in Postgres stay."""

from __future__ import annotations

from dataclasses import dataclass

from catalog.auth.hub_tokens import DAY, expired
from catalog.database import Database
from catalog.jobs.recovery import RINGS_A_SWEEP, recover
from catalog.jobs.repository import events as job_events
from catalog.jobs.repository import queues, recovery
from catalog.queue import ENCODE_QUEUE, ring_after_commit
from catalog.tasks import repository as tasks

FORGOTTEN_A_SWEEP = 20_000  # events


@dataclass(frozen=True)
class Sweep:
    """The jobs taken from dead workers, and the queued ones whose message was rung again."""

    released: list[int]
    rung: list[int]


def sweep(
    database: Database,
    *,
    silence: float,
    ring_again_after: float,
    deadly: int,
    events_kept: float,
    token_max_age: float = DAY,
) -> Sweep:
    """One round of `recover` and of bells for queued jobs; events older than `events_kept` are forgotten, and users'
    tokens older than `token_max_age`. Limits in seconds. Safe to run in any number of processes at once.
    """
    recovered = recover(database, silence=silence, deadly=deadly)
    rung: list[int] = []
    with database.transaction() as session:
        recovery.forget_tokens(session, token_max_age, expired())
    with database.transaction() as session:
        if not queues.is_paused(session, ENCODE_QUEUE):
            rung = recovery.due_for_ringing(session, ring_again_after, RINGS_A_SWEEP)
        for job_id in rung:
            ring_after_commit(session, job_id)
        tasks.forget_examples(session)
        job_events.forget(session, events_kept, FORGOTTEN_A_SWEEP)
    return Sweep(recovered.released, rung)
