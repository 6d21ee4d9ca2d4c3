"""Job events, in an order in which no event can appear before one that was already read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import delete, func, select, text, tuple_
from sqlalchemy.orm import Session

from catalog.database import seconds
from catalog.tables import Job, JobEvent, Model

# transactions from this one on may still be running, and their events would be committed later
_HORIZON = text("pg_snapshot_xmin(pg_current_snapshot())::text::bigint")


class EventCursor(NamedTuple):
    """The position of an event in the order: the transaction that wrote it, then the event's id."""

    tx: int
    id: int


@dataclass(frozen=True)
class Event:
    """A change of a job's state or progress, with the values after it."""

    cursor: EventCursor
    job_id: int
    repo_id: str
    state: str
    progress: float
    attempts: int
    error_code: str | None
    error_message: str | None
    at: datetime
    viewer: str | None = None  # the only submitter that may see the job


def list_page(session: Session, after: EventCursor, *, job_id: int | None = None, limit: int = 1_000) -> list[Event]:
    """Up to `limit` events after a cursor, in order, of all jobs or of one."""
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
    return [Event(EventCursor(tx, event_id), *values) for tx, event_id, *values in rows]


def newest_cursor(session: Session) -> EventCursor:
    """The cursor after every event that can be read now, and before every later one."""
    return EventCursor(session.execute(select(_HORIZON)).scalar_one(), 0)


def oldest_cursor(session: Session) -> EventCursor | None:
    """The cursor of the oldest event that has not been deleted."""
    row = session.execute(select(JobEvent.tx, JobEvent.id).order_by(JobEvent.tx, JobEvent.id).limit(1)).one_or_none()
    return EventCursor(*row) if row else None


def is_complete_after(session: Session, after: EventCursor) -> bool:
    """Whether no event after the cursor has been deleted."""
    if session.get(JobEvent, after.id) is not None:
        return True
    oldest = oldest_cursor(session)
    return oldest is None or oldest.id == 1 or oldest <= after


def delete_expired(session: Session, retention: float, limit: int) -> int:
    """Delete events older than `retention` seconds, among the oldest `limit` events. Returns how many."""
    oldest = select(JobEvent.id).order_by(JobEvent.id).limit(limit)
    statement = delete(JobEvent).where(JobEvent.id.in_(oldest), JobEvent.at < func.now() - seconds(retention))
    return session.execute(statement).rowcount  # type: ignore[attr-defined]
