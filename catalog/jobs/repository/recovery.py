"""What of the jobs has to be set going again: the dead workers', and those whose bell was lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, func, select, update
from sqlalchemy.orm import Session

from catalog.database import seconds
from catalog.error_record import ErrorRecord
from catalog.errors import CatalogError, Quarantined
from catalog.jobs.repository import attempts, workers
from catalog.models.repository import models
from catalog.tables import RUNNING, Job, JobState, Worker


@dataclass(frozen=True)
class Recovered:
    """Jobs taken from dead workers: queued again, or quarantined."""

    released: list[int]
    quarantined: list[int]


def recover(session: Session, heartbeat_limit: float, deadly: int) -> Recovered:
    """Take back what workers hold that stopped, whose process is gone from this machine, or whose heartbeat is older
    than the limit (seconds). A job that was with a dead worker counts that death (`count_deaths`).
    """
    gone = workers.gone(session)
    silent = list(session.scalars(_holding(Worker.heartbeat_at < func.now() - seconds(heartbeat_limit))))
    recovered = count_deaths(session, [*gone, *silent], deadly)
    workers.stop(session, *gone)
    stopped = list(session.scalars(_holding(Worker.stopped_at.is_not(None))))
    released = recovered.released + attempts.release(session, stopped)
    return Recovered(released, recovered.quarantined)


def count_deaths(session: Session, worker_ids: Sequence[int], deadly: int) -> Recovered:
    """Take back what workers hold that died, or that ended with an error which none of their jobs accounts for.

    Each job becomes a suspect, and is worked on alone from then on; what `deadly` workers died of, and the last of
    them with nothing else in its hands, is quarantined.
    """
    error = Quarantined(
        f"{deadly} workers died while they had this job, the last with nothing else to do; its history says when. "
        "It runs again when an admin retries it."
    )
    quarantined = attempts.quarantine(session, worker_ids, deadly, error)
    models.mark_failed(session, [model_id for _, model_id in quarantined])
    return Recovered(attempts.release_of_dead(session, worker_ids), [job_id for job_id, _ in quarantined])


def forget_tokens(session: Session, max_age: float, error: CatalogError) -> list[int]:
    """End the jobs whose users' tokens are older than `max_age` seconds, and with them the tokens. Returns the jobs."""
    old = update(Job).where(Job.token.is_not(None), Job.token_at < func.now() - seconds(max_age))
    ended = old.values(state=JobState.FAILED, **attempts.ENDING_VALUES, **ErrorRecord.from_error(error).columns())
    rows = session.execute(ended.returning(Job.id, Job.model_id)).all()
    models.mark_failed(session, [model_id for _, model_id in rows])
    return [job_id for job_id, _ in rows]


def due_for_ringing(session: Session, ring_again_after: float, limit: int) -> list[int]:
    """Queued jobs whose time has come and whose last ring is older than `ring_again_after` seconds, or older than
    the time they waited for; they count as rung from here on. The oldest first, at most `limit`.
    """
    lost = (Job.rung_at < func.now() - seconds(ring_again_after)) | (Job.rung_at < Job.available_at)
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


def _holding(condition: ColumnElement[bool]) -> Select[int]:
    """Workers of that kind that have jobs."""
    return select(Worker.id).join(Job, Job.worker_id == Worker.id).where(Job.state.in_(RUNNING), condition).distinct()
