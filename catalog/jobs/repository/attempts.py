"""Progress and ends of attempts. Every end appends an entry to the job's history, which keeps the first and the last
entries.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Update, case, func, literal_column, null, select, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session, aliased

from catalog.database import ErrorRecord, seconds
from catalog.errors import CatalogError
from catalog.tables import RUNNING, Job, JobState, Worker

FIRST_KEPT, LAST_KEPT = 3, 20  # entries of a history: some errors, such as rate limits, are retried without end

# set on every job that ends: its Hub token is deleted
ENDING_VALUES: dict[str, Any] = {"finished_at": func.now(), "token": None}


def update_progress(
    session: Session, job_ids: Sequence[int], worker_id: int, state: JobState, progress: float
) -> list[int]:
    """Set state and progress of running jobs. Returns the ids of the jobs that the worker still has claims to."""
    statement = _running(job_ids, worker_id).values(state=state, progress=progress)
    return list(session.execute(statement.returning(Job.id)).scalars())


def record_sha(session: Session, job_id: int, worker_id: int, sha: str) -> None:
    """Record the commit that a running job measures."""
    session.execute(_running([job_id], worker_id).values(sha=sha))


def finish(session: Session, job_id: int, worker_id: int, sha: str | None) -> bool:
    """Mark a job done. False if the worker no longer has the claim; then it must not store the job's result."""
    values = {"state": JobState.DONE, "progress": 1, "sha": sha, **ENDING_VALUES}
    statement = _running([job_id], worker_id).values(**values, history=with_attempt("done"))
    return session.execute(statement.returning(Job.id)).scalar_one_or_none() is not None


def fail(session: Session, job_id: int, worker_id: int, error: CatalogError) -> bool:
    """Mark a job failed with its error. False if the worker no longer has the claim."""
    statement = _running([job_id], worker_id).values(
        state=JobState.FAILED,
        history=with_attempt("failed", error),
        **ENDING_VALUES,
        **ErrorRecord.from_error(error).columns(),
    )
    return session.execute(statement.returning(Job.id)).scalar_one_or_none() is not None


def retry(session: Session, job_id: int, worker_id: int, error: CatalogError, delay: float) -> bool:
    """Queue a job again after a failure, to be claimed in `delay` seconds at the earliest. The sweep sends the
    notification at that time. False if the worker no longer has the claim.
    """
    statement = _running([job_id], worker_id).values(
        state=JobState.QUEUED,
        worker_id=None,
        available_at=func.now() + seconds(delay),
        history=with_attempt("failed", error),
        **ErrorRecord.from_error(error).columns(),
    )
    return session.execute(statement.returning(Job.id)).scalar_one_or_none() is not None


def hold(session: Session, job_id: int, worker_id: int, error: CatalogError, delay: float) -> bool:
    """Queue a job again that waits for a setting to be corrected, to be claimed in `delay` seconds at the earliest.

    The attempt does not count and has no entry in the history, because a job may wait for days. False if the worker no
    longer has the claim.
    """
    statement = _running([job_id], worker_id).values(
        state=JobState.QUEUED,
        worker_id=None,
        attempts=Job.attempts - 1,
        available_at=func.now() + seconds(delay),
        **ErrorRecord.from_error(error).columns(),
    )
    return session.execute(statement.returning(Job.id)).scalar_one_or_none() is not None


def release(session: Session, worker_ids: Sequence[int]) -> list[int]:
    """Requeue the running jobs of workers that stopped. Returns the ids of the jobs."""
    statement = _running_on(worker_ids).values(**REQUEUE_VALUES, history=with_attempt("released"))
    return list(session.execute(statement.returning(Job.id)).scalars())


REQUEUE_VALUES = {
    "state": JobState.QUEUED,
    "worker_id": None,
    "progress": 0,
    "available_at": func.now(),
    "enqueued_at": func.now(),
}


def release_after_death(
    session: Session, worker_ids: Sequence[int], job_ids: Collection[int] | None = None, deaths: int = 1
) -> list[int]:
    """Requeue the running jobs of dead workers, and count `deaths` for each: it may have killed its worker. With
    `job_ids`, only these of them.
    """
    statement = _running_on(worker_ids, job_ids).values(
        **REQUEUE_VALUES, worker_deaths=Job.worker_deaths + deaths, history=with_attempt("worker died")
    )
    return list(session.execute(statement.returning(Job.id)).scalars())


def quarantine(
    session: Session,
    worker_ids: Sequence[int],
    worker_deaths: int,
    error: CatalogError,
    job_ids: Collection[int] | None = None,
) -> list[Job]:
    """Fail the jobs that ran exclusively on a dead worker and have now been with `worker_deaths` dead workers. With
    `job_ids`, only these of them. Returns them.
    """
    other = aliased(Job)
    concurrent = select(other.id).where(other.worker_id == Job.worker_id, other.state.in_(RUNNING), other.id != Job.id)
    poison = _running_on(worker_ids, job_ids).where(Job.worker_deaths + 1 >= worker_deaths, ~concurrent.exists())
    statement = poison.values(
        state=JobState.FAILED,
        worker_deaths=Job.worker_deaths + 1,
        history=with_attempt("worker died"),
        **ENDING_VALUES,
        **ErrorRecord.from_error(error).columns(),
    )
    failed = session.scalars(statement.returning(Job.id)).all()
    return list(session.scalars(select(Job).where(Job.id.in_(failed)), execution_options={"populate_existing": True}))


def with_attempt(outcome: str, error: CatalogError | None = None) -> ColumnElement[Any]:
    """The job's history, with an entry for the attempt that ends now."""
    other = aliased(Job)
    record = ErrorRecord.from_error(error) if error else None
    worker = select(func.concat(Worker.host, ":", Worker.pid)).where(Worker.id == Job.worker_id).scalar_subquery()
    concurrent_jobs = select(func.count() - 1).where(other.worker_id == Job.worker_id, other.state.in_(RUNNING))
    entry = func.jsonb_build_object(
        *("attempt", Job.attempts, "worker_id", Job.worker_id, "worker", worker),
        *("started_at", Job.started_at, "ended_at", func.now(), "state", Job.state, "progress", Job.progress),
        *("concurrent_jobs", concurrent_jobs.scalar_subquery(), "outcome", outcome),
        *("code", record.code if record else null()),
        *("message", record.message if record else null()),
    )
    history = case((func.jsonb_array_length(Job.history) >= FIRST_KEPT + LAST_KEPT, _SHORTENED), else_=Job.history)
    return history.op("||", return_type=JSONB())(func.jsonb_build_array(entry))


# A history with room for one more entry: the middle is left out, and `left_out` of the entry after the gap counts it.
_SHORTENED: ColumnElement[Any] = literal_column(
    f"""(
    SELECT jsonb_path_query_array(jobs.history, '$[0 to {FIRST_KEPT - 1}]') || jsonb_set(
        newest, '{{0,left_out}}', to_jsonb(
            coalesce(cast(jobs.history #>> '{{{FIRST_KEPT},left_out}}' AS bigint), 0)
            + jsonb_array_length(jobs.history) - {FIRST_KEPT + LAST_KEPT - 1}
        )
    ) FROM jsonb_path_query_array(jobs.history, '$[last - {LAST_KEPT - 2} to last]') AS newest)""",
    JSONB(),
)


def _running(job_ids: Sequence[int], worker_id: int) -> Update:
    return update(Job).where(Job.id.in_(job_ids), Job.worker_id == worker_id, Job.state.in_(RUNNING))


def _running_on(worker_ids: Sequence[int], job_ids: Collection[int] | None = None) -> Update:
    statement = update(Job).where(Job.worker_id.in_(worker_ids), Job.state.in_(RUNNING))
    return statement if job_ids is None else statement.where(Job.id.in_(job_ids))
