"""Which queued job is next, and taking it with others of its base.

A person's job goes before a webhook's, and that before a crawl's. So that none waits for ever, one claim in
`OLDEST_EVERY` (counted by a sequence over all workers) takes the job that has waited longest, whatever it is, if that
is longer than its patience: from then on a job with n older ones is claimed after `OLDEST_EVERY` * (n + 1) claims at
the latest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Select, func, select, text, update
from sqlalchemy.orm import Session

from catalog.repository import queues
from catalog.repository.queues import ENCODE
from catalog.repository.times import seconds
from catalog.tables import RUNNING, Job, JobState, Priority, claim_turn

OLDEST_EVERY = 4

# Each priority is looked up by itself: only then does the index end a search at the jobs whose time has not come.
CLAIM = text("""
    WITH asked AS (
        SELECT id, base_hint, deaths FROM jobs
        WHERE id = :job_id AND state = 'queued' AND available_at <= now()
        FOR UPDATE SKIP LOCKED
    ), alike AS (
        SELECT more.id
        FROM asked
        CROSS JOIN (VALUES (0), (1), (2)) AS urgency (priority)
        CROSS JOIN LATERAL (
            SELECT jobs.id FROM jobs
            WHERE jobs.state = 'queued' AND coalesce(jobs.base_hint, '') = coalesce(asked.base_hint, '')
              AND jobs.priority = urgency.priority AND jobs.available_at <= now()
              AND jobs.deaths = 0 AND jobs.id <> asked.id
            ORDER BY jobs.available_at LIMIT :more
            FOR UPDATE SKIP LOCKED
        ) AS more
        WHERE asked.deaths = 0
        LIMIT :more
    )
    UPDATE jobs SET state = 'fetching', worker_id = :worker_id, attempts = attempts + 1, progress = 0,
        error_code = NULL, error_message = NULL, started_at = now(), updated_at = now()
    WHERE id IN (SELECT id FROM asked UNION ALL SELECT id FROM alike)
    RETURNING id
""")


@dataclass(frozen=True)
class Due:
    """The job to begin with. A suspect was with a worker that died, and is to be worked on with no other."""

    job_id: int
    suspect: bool


def next_due(session: Session, resident: Sequence[str], patience: float) -> Due | None:
    """The queued job to begin with, None while the queue is paused or nothing waits.

    Within a priority that is one that has waited for more than `patience` seconds, else one whose base is `resident`
    (repo ids, as hints), else the one that waits longest.
    """
    if queues.is_paused(session, ENCODE):
        return None
    turn = session.execute(select(claim_turn.next_value())).scalar_one()
    overdue = Job.available_at <= func.now() - seconds(patience)
    if turn % OLDEST_EVERY == 0 and (oldest := _first(session, _due().where(overdue))) is not None:
        return oldest
    for priority in Priority:
        due = _due().where(Job.priority == priority)
        if (oldest := _first(session, due)) is None:
            continue
        of_resident = (due.where(func.coalesce(Job.base_hint, "") == base) for base in resident)
        for statement in (due.where(Job.id == oldest.job_id, overdue), *of_resident):
            if (found := _first(session, statement)) is not None:
                return found
        return oldest
    return None


def claim(session: Session, job_id: int, worker_id: int, batch: int) -> list[Job]:
    """Take that job and up to `batch` - 1 more queued ones of the same base, in one statement; a suspect alone.

    Empty when another worker has it, it has ended, or its time has not come: a message that arrives twice is harmless.
    """
    parameters = {"job_id": job_id, "worker_id": worker_id, "more": batch - 1}
    claimed = session.execute(CLAIM, parameters).scalars().all()
    return list(session.scalars(select(Job).where(Job.id.in_(claimed)).order_by(Job.id)))


def is_due(session: Session, job_id: int) -> bool:
    """Whether the job still waits for a worker."""
    return session.execute(_waiting().where(Job.id == job_id)).first() is not None


def oldest_due(session: Session) -> int | None:
    """A job that waits for a worker; None while the queue is paused."""
    if queues.is_paused(session, ENCODE):
        return None
    found = _first(session, _due())
    return found.job_id if found else None


def any_due(session: Session, bases: Sequence[str], priority: int) -> bool:
    """Whether a job as urgent of one of these bases (as hints), or of one that is not known yet, waits for a worker."""
    hinted = func.coalesce(Job.base_hint, "").in_(["", *bases])
    return session.execute(_waiting().where(hinted, Job.priority <= priority).limit(1)).first() is not None


def put_back(session: Session, job_ids: Sequence[int], worker_id: int, base_hint: str) -> None:
    """Queue claimed jobs again, at the place they had, now that their base is known."""
    own = update(Job).where(Job.id.in_(job_ids), Job.worker_id == worker_id, Job.state.in_(RUNNING))
    values = {"state": JobState.QUEUED, "worker_id": None, "base_hint": base_hint, "attempts": Job.attempts - 1}
    session.execute(own.values(**values))


def held(session: Session, worker_id: int) -> set[int]:
    """The jobs that a worker has."""
    return set(session.scalars(select(Job.id).where(Job.worker_id == worker_id, Job.state.in_(RUNNING))))


def _waiting() -> Select[int, int]:
    return select(Job.id, Job.deaths).where(Job.state == JobState.QUEUED, Job.available_at <= func.now())


def _due() -> Select[int, int]:
    """The one that waits longest and that nobody else is taking."""
    return _waiting().order_by(Job.available_at).limit(1).with_for_update(skip_locked=True)


def _first(session: Session, statement: Select[int, int]) -> Due | None:
    row = session.execute(statement).one_or_none()
    return Due(row.id, row.deaths > 0) if row else None
