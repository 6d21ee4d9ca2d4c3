"""Selection of the next queued job, and the claim of it together with other jobs of its base.

Jobs of users precede jobs of webhooks, which precede jobs of crawls. To prevent starvation, one claim in
`OLDEST_EVERY` (counted over all workers by a sequence) takes the job that has waited longest, regardless of its
priority, if it has waited for more than `max_wait` seconds. From then on, a job with n older ones is claimed after at
most `OLDEST_EVERY` * (n + 1) claims.
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

# The candidates for the next job, in order: each subquery runs only if those before it return no row, and skips rows
# that other workers are claiming. Each priority has its own subquery: only then does the index scan stop at the jobs
# that are not due yet.
_CANDIDATE = """
    SELECT id, exclusive OR worker_deaths > 0 AS exclusive FROM jobs
    WHERE state = 'queued' AND available_at <= {since} {where}
    ORDER BY available_at LIMIT 1 FOR UPDATE SKIP LOCKED
"""
_OVERDUE = "now() - make_interval(secs => :max_wait)"
_ANY, _URGENT = "", "AND priority = urgency.priority"
_RESIDENT = f"{_URGENT} AND coalesce(base_hint, '') = base.name"
NEXT_DUE = text(f"""
    WITH turn AS MATERIALIZED (SELECT nextval('claim_turn') % :oldest_every = 0 AS of_the_oldest)
    SELECT candidate.id, candidate.exclusive FROM (
        SELECT oldest.* FROM turn CROSS JOIN LATERAL ({_CANDIDATE.format(since=_OVERDUE, where=_ANY)}) AS oldest
        WHERE turn.of_the_oldest
        UNION ALL
        SELECT of_priority.* FROM (VALUES (0), (1), (2)) AS urgency (priority) CROSS JOIN LATERAL (
            SELECT * FROM ({_CANDIDATE.format(since=_OVERDUE, where=_URGENT)}) AS overdue
            UNION ALL
            SELECT of_base.* FROM unnest(cast(:resident AS text[])) AS base (name)
            CROSS JOIN LATERAL ({_CANDIDATE.format(since="now()", where=_RESIDENT)}) AS of_base
            UNION ALL
            SELECT * FROM ({_CANDIDATE.format(since="now()", where=_URGENT)}) AS oldest
        ) AS of_priority
    ) AS candidate
    WHERE NOT EXISTS (SELECT FROM paused_queues WHERE name = :queue)
    LIMIT 1
""")

_JOB = tuple(Job.__table__.c)
_MODEL = tuple(column for column in Model.__table__.c if column.name != "words")  # loaded on demand
CLAIM = text(f"""
    WITH first AS (
        SELECT id, base_hint, exclusive OR worker_deaths > 0 AS exclusive FROM jobs
        WHERE id = :job_id AND state = 'queued' AND available_at <= now()
          AND NOT EXISTS (SELECT FROM paused_queues WHERE name = :queue)
          AND (cast(:silence AS float8) IS NULL OR EXISTS (
              SELECT FROM workers
              WHERE workers.id = :worker_id AND heartbeat_at > now() - make_interval(secs => :silence)
          ))
        FOR UPDATE SKIP LOCKED
    ), same_base AS (
        SELECT more.id
        FROM first
        CROSS JOIN (VALUES (0), (1), (2)) AS urgency (priority)
        CROSS JOIN LATERAL (
            SELECT jobs.id FROM jobs
            WHERE jobs.state = 'queued' AND coalesce(jobs.base_hint, '') = coalesce(first.base_hint, '')
              AND jobs.priority = urgency.priority AND jobs.available_at <= now()
              AND jobs.worker_deaths = 0 AND NOT jobs.exclusive AND jobs.id <> first.id
            ORDER BY jobs.available_at LIMIT :more
            FOR UPDATE SKIP LOCKED
        ) AS more
        WHERE NOT first.exclusive
        LIMIT :more
    ), claimed AS (
        UPDATE jobs SET state = 'fetching', worker_id = :worker_id, attempts = attempts + 1, progress = 0,
            error_code = NULL, error_message = NULL, started_at = now(), updated_at = now()
        WHERE id IN (SELECT id FROM first UNION ALL SELECT id FROM same_base)
        RETURNING *
    )
    SELECT {", ".join(f"claimed.{column.name}" for column in _JOB)}, {", ".join(map(str, _MODEL))}
    FROM claimed JOIN models ON models.id = claimed.model_id ORDER BY claimed.id
""")
_CLAIMED = select(Job).options(contains_eager(Job.model)).from_statement(CLAIM.columns(*_JOB, *_MODEL))


@dataclass(frozen=True)
class DueJob:
    """The job to claim next. `exclusive` jobs run with nothing else on their worker: the jobs of tasks, selections and
    merges, and suspects, which were with a worker that died.
    """

    job_id: int
    exclusive: bool


def find_next_due(session: Session, resident: Sequence[str], max_wait: float) -> DueJob | None:
    """The queued job to claim next. None while the queue is paused or no job is due.

    Within a priority, that is a job that has waited for more than `max_wait` seconds, else one whose base hint is in
    `resident` (repo ids), else the one that has waited longest.
    """
    parameters = {
        "oldest_every": OLDEST_EVERY,
        "max_wait": max_wait,
        "resident": list(resident),
        "queue": ENCODE_QUEUE,
    }
    row = session.execute(NEXT_DUE, parameters).one_or_none()
    return DueJob(row.id, row.exclusive) if row else None


def claim(session: Session, job_id: int, worker_id: int, batch: int, *, max_silence: float | None = None) -> list[Job]:
    """Claim a job and up to `batch` - 1 more queued jobs of the same base, in one statement. An exclusive job is
    claimed alone.

    Empty if the job is claimed by another worker, has ended or is not due yet, or if the queue is paused: a message
    that is delivered twice is harmless. Also empty if the worker's own last heartbeat is older than `max_silence`
    seconds (None: not checked): whatever it claimed would be requeued as that of a dead worker.
    """
    queues.lock_against_pause(session)
    parameters = {
        "job_id": job_id,
        "worker_id": worker_id,
        "more": batch - 1,
        "queue": ENCODE_QUEUE,
        "silence": max_silence,
    }
    return list(session.scalars(_CLAIMED, parameters, execution_options={"populate_existing": True}))


def is_due(session: Session, job_id: int) -> bool:
    """Whether the job is queued and due."""
    return session.execute(_queued_and_due().where(Job.id == job_id)).first() is not None


def find_oldest_due(session: Session) -> int | None:
    """The id of the job that has been due longest. None while the queue is paused or no job is due."""
    if queues.is_paused(session, ENCODE_QUEUE):
        return None
    return session.execute(_oldest_due()).scalar_one_or_none()


def has_due(session: Session, bases: Sequence[str], priority: int) -> bool:
    """Whether a job of at least this priority is due whose base hint is in `bases`, or whose base is not known yet."""
    hinted = func.coalesce(Job.base_hint, "").in_(["", *bases])
    return session.execute(_queued_and_due().where(hinted, Job.priority <= priority).limit(1)).first() is not None


def requeue(session: Session, job_ids: Sequence[int], worker_id: int, base_hint: str | None = None) -> None:
    """Return claimed jobs to their position in the queue, with the base that they turned out to have (None: not known
    yet). The attempt is not counted.
    """
    claimed = update(Job).where(Job.id.in_(job_ids), Job.worker_id == worker_id, Job.state.in_(RUNNING))
    values = {"state": JobState.QUEUED, "worker_id": None, "attempts": Job.attempts - 1}
    session.execute(claimed.values(values if base_hint is None else {**values, "base_hint": base_hint}))


def claimed_ids(session: Session, worker_id: int) -> set[int]:
    """The ids of the jobs that a worker has claimed and that have not ended."""
    return set(session.scalars(select(Job.id).where(Job.worker_id == worker_id, Job.state.in_(RUNNING))))


def _queued_and_due() -> Select[int]:
    return select(Job.id).where(Job.state == JobState.QUEUED, Job.available_at <= func.now())


def _oldest_due() -> Select[int]:
    """The job that has been due longest, among the jobs that no other worker is claiming."""
    return _queued_and_due().order_by(Job.available_at).limit(1).with_for_update(skip_locked=True)
