"""Jobs. Each change of state is one statement that names the state it starts from, so two workers cannot both win."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Update, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from catalog.database import storable
from catalog.errors import CatalogError, JobNotFound, WorkerLost
from catalog.repository import models
from catalog.tables import ACTIVE, RUNNING, Job, JobState, Model, Worker

MAX_MESSAGE = 4_000  # characters of an error that are stored

_CLAIM = text("""
    WITH asked AS (
        SELECT id, base_hint FROM jobs
        WHERE id = :job_id AND state = 'queued' AND available_at <= now()
        FOR UPDATE SKIP LOCKED
    ), alike AS (
        SELECT jobs.id FROM jobs, asked
        WHERE jobs.state = 'queued' AND jobs.available_at <= now() AND jobs.id <> asked.id
          AND jobs.base_hint IS NOT DISTINCT FROM asked.base_hint
        ORDER BY jobs.available_at LIMIT :more
        FOR UPDATE OF jobs SKIP LOCKED
    )
    UPDATE jobs SET state = 'fetching', worker_id = :worker_id, attempts = attempts + 1, progress = 0,
        error_code = NULL, error_message = NULL, started_at = now(), updated_at = now()
    WHERE id IN (SELECT id FROM asked UNION ALL SELECT id FROM alike)
    RETURNING id
""")


def submit(session: Session, model: Model, revision: str | None, base_hint: str | None = None) -> tuple[Job, bool]:
    """The active job for that model and revision, made if there is none; and whether it was made."""
    statement = (
        insert(Job)
        .values(model_id=model.id, requested_revision=revision, base_hint=base_hint)
        .on_conflict_do_nothing()
        .returning(Job.id)
    )
    while True:
        made = session.execute(statement).scalar_one_or_none()
        if made is not None:
            return get(session, made), True
        active = select(Job).where(
            Job.model_id == model.id,
            Job.requested_revision.is_not_distinct_from(revision),
            Job.state.in_(ACTIVE),
        )
        # the job that stood in the way may have ended in the meantime; then the insert succeeds
        if (job := session.scalars(active).one_or_none()) is not None:
            return job, False


def get(session: Session, job_id: int) -> Job:
    """Raises `JobNotFound`."""
    job = session.get(Job, job_id, populate_existing=True)
    if job is None:
        raise JobNotFound(f"There is no job {job_id}.")
    return job


def page(session: Session, *, state: JobState | None = None, before: int | None = None, limit: int = 50) -> list[Job]:
    """Up to `limit` jobs with an id below `before`, newest first."""
    statement = select(Job).order_by(Job.id.desc()).limit(limit)
    if state is not None:
        statement = statement.where(Job.state == state)
    if before is not None:
        statement = statement.where(Job.id < before)
    return list(session.scalars(statement))


def latest_done(session: Session, model_id: int, sha: str) -> Job | None:
    """The newest job that ended well for that commit."""
    statement = select(Job).where(Job.model_id == model_id, Job.sha == sha, Job.state == JobState.DONE)
    return session.scalars(statement.order_by(Job.id.desc()).limit(1)).one_or_none()


def claim(session: Session, job_id: int, worker_id: int, batch: int) -> list[Job]:
    """Take that job and up to `batch` - 1 more queued ones of the same base, in one statement.

    Empty when another worker has it, it has ended, or its time has not come: a message that arrives twice is harmless.
    """
    parameters = {"job_id": job_id, "worker_id": worker_id, "more": batch - 1}
    claimed = session.execute(_CLAIM, parameters).scalars().all()
    return list(session.scalars(select(Job).where(Job.id.in_(claimed)).order_by(Job.id)))


def next_due(session: Session, resident: Sequence[str], patience: float) -> int | None:
    """The queued job to begin with: one that has waited for more than `patience` seconds, else one whose base is
    `resident` (repo ids, as hints), else the one that waits longest.
    """
    due = (
        select(Job.id)
        .where(Job.state == JobState.QUEUED, Job.available_at <= func.now())
        .order_by(Job.available_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    overdue = Job.available_at <= func.now() - _seconds(patience)
    for statement in (due.where(overdue), *(due.where(Job.base_hint == base) for base in resident), due):
        if (job_id := session.execute(statement).scalar_one_or_none()) is not None:
            return job_id
    return None


def is_due(session: Session, job_id: int) -> bool:
    """Whether the job still waits for a worker."""
    statement = select(Job.id).where(Job.id == job_id, Job.state == JobState.QUEUED, Job.available_at <= func.now())
    return session.execute(statement).first() is not None


def any_due(session: Session, bases: Sequence[str]) -> bool:
    """Whether a job of one of these bases (as hints), or of one that is not known yet, waits for a worker."""
    hinted = Job.base_hint.in_(bases) | Job.base_hint.is_(None)
    statement = select(Job.id).where(Job.state == JobState.QUEUED, Job.available_at <= func.now(), hinted).limit(1)
    return session.execute(statement).first() is not None


def put_back(session: Session, job_ids: Sequence[int], worker_id: int, base_hint: str) -> None:
    """Queue claimed jobs again, at the place they had, now that their base is known."""
    values = {"state": JobState.QUEUED, "worker_id": None, "base_hint": base_hint, "attempts": Job.attempts - 1}
    session.execute(_own(job_ids, worker_id).values(**values))


def advance(session: Session, job_ids: Sequence[int], worker_id: int, state: JobState, progress: float) -> list[int]:
    """Move running jobs of that worker on; returns those that still are its own."""
    statement = _own(job_ids, worker_id).values(state=state, progress=progress)
    return list(session.execute(statement.returning(Job.id)).scalars())


def finish(session: Session, job_id: int, worker_id: int, sha: str) -> bool:
    """End a job well. False when it is not this worker's any more: then nothing of its result may be stored."""
    statement = _own([job_id], worker_id).values(state=JobState.DONE, progress=1, sha=sha, finished_at=func.now())
    return session.execute(statement.returning(Job.id)).scalar_one_or_none() is not None


def fail(session: Session, job_id: int, worker_id: int, error: CatalogError) -> bool:
    """End a job with its error. False when it is not this worker's any more."""
    statement = _own([job_id], worker_id).values(
        state=JobState.FAILED,
        error_code=error.code,
        error_message=storable(error.message)[:MAX_MESSAGE],
        finished_at=func.now(),
    )
    return session.execute(statement.returning(Job.id)).scalar_one_or_none() is not None


def retry(session: Session, job_id: int, worker_id: int, error: CatalogError, delay: float) -> bool:
    """Queue a job again in `delay` seconds, its error kept. The sweeper rings when the time has come."""
    statement = _own([job_id], worker_id).values(
        state=JobState.QUEUED,
        worker_id=None,
        error_code=error.code,
        error_message=storable(error.message)[:MAX_MESSAGE],
        available_at=func.now() + _seconds(delay),
    )
    return session.execute(statement.returning(Job.id)).scalar_one_or_none() is not None


def withdraw(session: Session, model_id: int) -> list[int]:
    """End what waits or runs for a model: what a worker still makes of it is not stored any more. Returns the jobs."""
    statement = update(Job).where(Job.model_id == model_id, Job.state.in_(ACTIVE))
    ended = statement.values(state=JobState.CANCELLED, finished_at=func.now()).returning(Job.id)
    return list(session.execute(ended).scalars())


def active(session: Session, model_id: int) -> bool:
    """Whether a job waits or runs for a model."""
    return session.execute(select(Job.id).where(Job.model_id == model_id, Job.state.in_(ACTIVE))).first() is not None


def release(session: Session, worker_id: int) -> list[int]:
    """Queue again what a worker still holds. Returns the jobs."""
    return _requeue(session, [worker_id])


def release_dead(session: Session, heartbeat_limit: float) -> list[int]:
    """Queue again what workers hold that stopped, or whose heartbeat is older than the limit (seconds)."""
    return _requeue(session, _dead_workers(session, heartbeat_limit))


def fail_deadly(session: Session, heartbeat_limit: float, max_attempts: int) -> list[int]:
    """Fail what dead workers hold and that has had its `max_attempts`. Returns the jobs."""
    dead = _dead_workers(session, heartbeat_limit)
    error = WorkerLost(f"The worker died while it had this job, {max_attempts} times in all; its log may say why.")
    statement = update(Job).where(Job.worker_id.in_(dead), Job.state.in_(RUNNING), Job.attempts >= max_attempts)
    failed = {"state": JobState.FAILED, "error_code": error.code, "error_message": error.message}
    ended = session.execute(statement.values(**failed, finished_at=func.now()).returning(Job.id, Job.model_id)).all()
    models.mark_failed(session, [model_id for _, model_id in ended])
    return [job_id for job_id, _ in ended]


def _dead_workers(session: Session, heartbeat_limit: float) -> list[int]:
    """Those that still hold jobs."""
    silent = Worker.heartbeat_at < func.now() - _seconds(heartbeat_limit)
    statement = (
        select(Worker.id)
        .join(Job, Job.worker_id == Worker.id)
        .where(Job.state.in_(RUNNING), silent | Worker.stopped_at.is_not(None))
        .distinct()
    )
    return list(session.scalars(statement))


def due_for_ringing(session: Session, ring_again_after: float, limit: int) -> list[int]:
    """Queued jobs whose time has come and whose last ring is older than `ring_again_after` seconds, or older than
    the time they waited for; they count as rung from here on. The oldest first, at most `limit`.
    """
    lost = (Job.rung_at < func.now() - _seconds(ring_again_after)) | (Job.rung_at < Job.available_at)
    due = (
        select(Job.id)
        .where(Job.state == JobState.QUEUED, Job.available_at <= func.now(), lost)
        .order_by(Job.available_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")  # evaluated once; a subquery with a limit may be run again for every row
    )
    rung = update(Job).where(Job.id.in_(select(due.c.id))).values(rung_at=func.now()).returning(Job.id)
    return list(session.execute(rung).scalars())


def counts(session: Session) -> dict[JobState, int]:
    """How many jobs are in each state."""
    rows = session.execute(select(Job.state, func.count()).group_by(Job.state))
    return dict.fromkeys(JobState, 0) | {JobState(state): count for state, count in rows}


def _own(job_ids: Sequence[int], worker_id: int) -> Update:
    return update(Job).where(Job.id.in_(job_ids), Job.worker_id == worker_id, Job.state.in_(RUNNING))


def _requeue(session: Session, worker_ids: Sequence[int]) -> list[int]:
    if not worker_ids:
        return []
    statement = update(Job).where(Job.worker_id.in_(worker_ids), Job.state.in_(RUNNING))
    values = {"state": JobState.QUEUED, "worker_id": None, "available_at": func.now(), "rung_at": func.now()}
    return list(session.execute(statement.values(**values).returning(Job.id)).scalars())


def _seconds(value: float) -> object:
    return func.make_interval(0, 0, 0, 0, 0, 0, value)
