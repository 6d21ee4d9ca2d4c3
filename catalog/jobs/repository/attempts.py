"""How a job's attempt ends: each adds a line to the job's history, with what was known then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Update, func, null, select, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session, aliased

from catalog.database import seconds
from catalog.error_record import ErrorRecord
from catalog.errors import CatalogError
from catalog.tables import RUNNING, Job, JobState, Worker

# of every job that ends: its token is not kept
ENDING_VALUES: dict[str, Any] = {"finished_at": func.now(), "token": None}


def advance(session: Session, job_ids: Sequence[int], worker_id: int, state: JobState, progress: float) -> list[int]:
    """Move running jobs of that worker on; returns those that still are its own."""
    statement = _own(job_ids, worker_id).values(state=state, progress=progress)
    return list(session.execute(statement.returning(Job.id)).scalars())


def finish(session: Session, job_id: int, worker_id: int, sha: str | None) -> bool:
    """End a job well. False when it is not this worker's any more: then nothing of its result may be stored."""
    ended = {"state": JobState.DONE, "progress": 1, "sha": sha, **ENDING_VALUES}
    statement = _own([job_id], worker_id).values(**ended, history=with_attempt("done"))
    return session.execute(statement.returning(Job.id)).scalar_one_or_none() is not None


def fail(session: Session, job_id: int, worker_id: int, error: CatalogError) -> bool:
    """End a job with its error. False when it is not this worker's any more."""
    statement = _own([job_id], worker_id).values(
        state=JobState.FAILED,
        history=with_attempt("failed", error),
        **ENDING_VALUES,
        **ErrorRecord.from_error(error).columns(),
    )
    return session.execute(statement.returning(Job.id)).scalar_one_or_none() is not None


def retry(session: Session, job_id: int, worker_id: int, error: CatalogError, delay: float) -> bool:
    """Queue a job again in `delay` seconds, its error kept. The sweeper rings when the time has come."""
    statement = _own([job_id], worker_id).values(
        state=JobState.QUEUED,
        worker_id=None,
        available_at=func.now() + seconds(delay),
        history=with_attempt("failed", error),
        **ErrorRecord.from_error(error).columns(),
    )
    return session.execute(statement.returning(Job.id)).scalar_one_or_none() is not None


def release(session: Session, worker_ids: Sequence[int]) -> list[int]:
    """Queue again what workers still hold that gave it up. Returns the jobs."""
    statement = _held(worker_ids).values(**QUEUED_AGAIN, history=with_attempt("released"))
    return list(session.execute(statement.returning(Job.id)).scalars())


QUEUED_AGAIN = {
    "state": JobState.QUEUED,
    "worker_id": None,
    "progress": 0,
    "available_at": func.now(),
    "rung_at": func.now(),
}


def release_of_dead(session: Session, worker_ids: Sequence[int]) -> list[int]:
    """Queue again what dead workers hold. Any of it may be what killed them: each is a suspect from here on."""
    statement = _held(worker_ids).values(**QUEUED_AGAIN, deaths=Job.deaths + 1, history=with_attempt("worker died"))
    return list(session.execute(statement.returning(Job.id)).scalars())


def quarantine(session: Session, worker_ids: Sequence[int], deaths: int, error: CatalogError) -> list[tuple[int, int]]:
    """End what dead workers held alone and that was with `deaths` dead ones by now. Returns jobs and their models."""
    other = aliased(Job)
    company = select(other.id).where(other.worker_id == Job.worker_id, other.state.in_(RUNNING), other.id != Job.id)
    guilty = _held(worker_ids).where(Job.deaths + 1 >= deaths, ~company.exists())
    statement = guilty.values(
        state=JobState.FAILED,
        deaths=Job.deaths + 1,
        history=with_attempt("worker died"),
        **ENDING_VALUES,
        **ErrorRecord.from_error(error).columns(),
    )
    return [(job_id, model_id) for job_id, model_id in session.execute(statement.returning(Job.id, Job.model_id))]


def with_attempt(outcome: str, error: CatalogError | None = None) -> ColumnElement[Any]:
    """The history with the attempt that ends now: which worker, from when to when, how far it was, beside how many."""
    other = aliased(Job)
    stored = ErrorRecord.from_error(error) if error else None
    worker = select(func.concat(Worker.host, ":", Worker.pid)).where(Worker.id == Job.worker_id).scalar_subquery()
    beside = select(func.count() - 1).where(other.worker_id == Job.worker_id, other.state.in_(RUNNING))
    line = func.jsonb_build_object(
        *("attempt", Job.attempts, "worker_id", Job.worker_id, "worker", worker),
        *("started_at", Job.started_at, "ended_at", func.now(), "state", Job.state, "progress", Job.progress),
        *("beside", beside.scalar_subquery(), "outcome", outcome),
        *("code", stored.code if stored else null()),
        *("message", stored.message if stored else null()),
    )
    return Job.history.op("||", return_type=JSONB())(func.jsonb_build_array(line))


def _own(job_ids: Sequence[int], worker_id: int) -> Update:
    return update(Job).where(Job.id.in_(job_ids), Job.worker_id == worker_id, Job.state.in_(RUNNING))


def _held(worker_ids: Sequence[int]) -> Update:
    return update(Job).where(Job.worker_id.in_(worker_ids), Job.state.in_(RUNNING))
