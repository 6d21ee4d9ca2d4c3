"""The events of jobs, in an order in which none is ever inserted before one that was read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import delete, func, select, text, tuple_
from sqlalchemy.orm import Session

from catalog.database import seconds
from catalog.tables import Job, JobEvent, Model

# transactions from here on may still be running: what they wrote would come late
_HORIZON = text("pg_snapshot_xmin(pg_current_snapshot())::text::bigint")


class Place(NamedTuple):
    """Where an event stands: by the transaction that wrote it, then by its own number."""

    tx: int
    id: int


@dataclass(frozen=True)
class Event:
    """What a job had become."""

    place: Place
    job_id: int
    repo_id: str
    state: str
    progress: float
    attempts: int
    error_code: str | None
    error_message: str | None
    at: datetime
    viewer: str | None = None  # the submitter that alone may see the job


def page(session: Session, after: Place, *, job_id: int | None = None, limit: int = 1_000) -> list[Event]:
    """Up to `limit` events behind a place, in order; of one job alone where that is asked for."""
    statement = (
        select(
            JobEvent.tx,
            JobEvent.id,
            JobEvent.job_id,
            Model.repo_id,
            JobEvent.state,
            JobEvent.progress,
            JobEvent.attempts,
            JobEvent.error_code,
            JobEvent.error_message,
            JobEvent.at,
            Job.viewer,
        )
        .join(Job, Job.id == JobEvent.job_id)
        .join(Model, Model.id == Job.model_id)
        .where(tuple_(JobEvent.tx, JobEvent.id) > tuple_(*after), JobEvent.tx < _HORIZON)
    )
    if job_id is not None:
        statement = statement.where(JobEvent.job_id == job_id)
    rows = session.execute(statement.order_by(JobEvent.tx, JobEvent.id).limit(limit))
    return [Event(Place(tx, number), *told) for tx, number, *told in rows]


def head(session: Session) -> Place:
    """Behind every event that can be read now, before every one that cannot."""
    return Place(session.execute(select(_HORIZON)).scalar_one(), 0)


def oldest(session: Session) -> Place | None:
    """The first event that is still kept."""
    row = session.execute(select(JobEvent.tx, JobEvent.id).order_by(JobEvent.tx, JobEvent.id).limit(1)).one_or_none()
    return Place(*row) if row else None


def all_kept(session: Session, after: Place) -> bool:
    """Whether nothing behind a place was forgotten already."""
    if session.get(JobEvent, after.id) is not None:
        return True
    first = oldest(session)
    return first is None or first.id == 1 or first <= after


def forget(session: Session, kept: float, limit: int) -> int:
    """Drop events that are older than `kept` seconds, looking at the first `limit`. Returns how many."""
    first = select(JobEvent.id).order_by(JobEvent.id).limit(limit)
    statement = delete(JobEvent).where(JobEvent.id.in_(first), JobEvent.at < func.now() - seconds(kept))
    return session.execute(statement).rowcount  # type: ignore[attr-defined]
