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
from sqlalchemy.orm import Session, contains_eager

from catalog.jobs.repository import queues
from catalog.queue import ENCODE_QUEUE
from catalog.tables import RUNNING, Job, JobState, Model

OLDEST_EVERY = 4

# Places where the next job may stand, the first before the others: each is looked at only where those before it are
# empty, and passes over what others are taking. Each priority is looked up by itself: only then does an index end the
# search at the jobs whose time has not come.
_PLACE = """
    SELECT id, alone OR deaths > 0 AS alone FROM jobs WHERE state = 'queued' AND available_at <= {since} {where}
    ORDER BY available_at LIMIT 1 FOR UPDATE SKIP LOCKED
"""
_OVERDUE = "now() - make_interval(secs => :patience)"
_ANY, _URGENT = "", "AND priority = urgency.priority"
_RESIDENT = f"{_URGENT} AND coalesce(base_hint, '') = base.name"
NEXT_DUE = text(f"""
    WITH turn AS MATERIALIZED (SELECT nextval('claim_turn') % :oldest_every = 0 AS of_the_oldest)
    SELECT place.id, place.alone FROM (
        SELECT oldest.* FROM turn CROSS JOIN LATERAL ({_PLACE.format(since=_OVERDUE, where=_ANY)}) AS oldest
        WHERE turn.of_the_oldest
        UNION ALL
        SELECT of_priority.* FROM (VALUES (0), (1), (2)) AS urgency (priority) CROSS JOIN LATERAL (
            SELECT * FROM ({_PLACE.format(since=_OVERDUE, where=_URGENT)}) AS overdue
            UNION ALL
            SELECT of_base.* FROM unnest(cast(:resident AS text[])) AS base (name)
            CROSS JOIN LATERAL ({_PLACE.format(since="now()", where=_RESIDENT)}) AS of_base
            UNION ALL
            SELECT * FROM ({_PLACE.format(since="now()", where=_URGENT)}) AS oldest
        ) AS of_priority
    ) AS place
    WHERE NOT EXISTS (SELECT FROM paused_queues WHERE name = :queue)
    LIMIT 1
""")

_JOB = tuple(Job.__table__.c)
_MODEL = tuple(column for column in Model.__table__.c if column.name != "words")  # which is loaded when asked for
CLAIM = text(f"""
    WITH asked AS (
        SELECT id, base_hint, alone OR deaths > 0 AS alone FROM jobs
        WHERE id = :job_id AND state = 'queued' AND available_at <= now()
          AND NOT EXISTS (SELECT FROM paused_queues WHERE name = :queue)
        FOR UPDATE SKIP LOCKED
    ), alike AS (
        SELECT more.id
        FROM asked
        CROSS JOIN (VALUES (0), (1), (2)) AS urgency (priority)
        CROSS JOIN LATERAL (
            SELECT jobs.id FROM jobs
            WHERE jobs.state = 'queued' AND coalesce(jobs.base_hint, '') = coalesce(asked.base_hint, '')
              AND jobs.priority = urgency.priority AND jobs.available_at <= now()
              AND jobs.deaths = 0 AND NOT jobs.alone AND jobs.id <> asked.id
            ORDER BY jobs.available_at LIMIT :more
            FOR UPDATE SKIP LOCKED
        ) AS more
        WHERE NOT asked.alone
        LIMIT :more
    ), claimed AS (
        UPDATE jobs SET state = 'fetching', worker_id = :worker_id, attempts = attempts + 1, progress = 0,
            error_code = NULL, error_message = NULL, started_at = now(), updated_at = now()
        WHERE id IN (SELECT id FROM asked UNION ALL SELECT id FROM alike)
        RETURNING *
    )
    SELECT {", ".join(f"claimed.{column.name}" for column in _JOB)}, {", ".join(map(str, _MODEL))}
    FROM claimed JOIN models ON models.id = claimed.model_id ORDER BY claimed.id
""")
_CLAIMED = select(Job).options(contains_eager(Job.model)).from_statement(CLAIM.columns(*_JOB, *_MODEL))


@dataclass(frozen=True)
class Due:
    """The job to begin with. One `alone` is to be worked on with no other: a suspect, which was with a worker that
    died, and whatever asks for that.
    """

    job_id: int
    alone: bool


def next_due(session: Session, resident: Sequence[str], patience: float) -> Due | None:
    """The queued job to begin with, None while the queue is paused or nothing waits.

    Within a priority that is one that has waited for more than `patience` seconds, else one whose base is `resident`
    (repo ids, as hints), else the one that waits longest.
    """
    asked = {"oldest_every": OLDEST_EVERY, "patience": patience, "resident": list(resident), "queue": ENCODE_QUEUE}
    row = session.execute(NEXT_DUE, asked).one_or_none()
    return Due(row.id, row.alone) if row else None


def claim(session: Session, job_id: int, worker_id: int, batch: int) -> list[Job]:
    """Take that job and up to `batch` - 1 more queued ones of the same base, in one statement; some alone.

    Empty when another worker has it, it has ended, its time has not come, or the queue is paused: a message that
    arrives twice is harmless.
    """
    queues.hold_off_pauses(session)
    parameters = {"job_id": job_id, "worker_id": worker_id, "more": batch - 1, "queue": ENCODE_QUEUE}
    return list(session.scalars(_CLAIMED, parameters, execution_options={"populate_existing": True}))


def is_due(session: Session, job_id: int) -> bool:
    """Whether the job still waits for a worker."""
    return session.execute(_waiting().where(Job.id == job_id)).first() is not None


def oldest_due(session: Session) -> int | None:
    """A job that waits for a worker; None while the queue is paused."""
    if queues.is_paused(session, ENCODE_QUEUE):
        return None
    return session.execute(_due()).scalar_one_or_none()


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


def _waiting() -> Select[int]:
    return select(Job.id).where(Job.state == JobState.QUEUED, Job.available_at <= func.now())


def _due() -> Select[int]:
    """The one that waits longest and that nobody else is taking."""
    return _waiting().order_by(Job.available_at).limit(1).with_for_update(skip_locked=True)
