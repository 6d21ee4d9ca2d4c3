"""Pausing and resuming of queues. While a queue is paused, nothing is claimed from it; running jobs continue."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from catalog import locks
from catalog.locks import Lock
from catalog.queue import ENCODE_QUEUE, MAINTENANCE_QUEUE
from catalog.tables import RUNNING, Job, JobState, PausedQueue


@dataclass(frozen=True)
class QueueReport:
    """The state of a queue. A paused queue is drained once none of its jobs runs any more."""

    name: str
    paused_at: datetime | None
    queued: int
    running: int

    @property
    def drained(self) -> bool:
        return self.paused_at is not None and self.running == 0


def lock_against_pause(session: Session) -> None:
    """Make concurrent pauses wait until this transaction, with the claim that follows in it, has ended."""
    locks.acquire_shared(session, Lock.QUEUE_PAUSE)


def is_paused(session: Session, name: str) -> bool:
    """Whether the queue is paused; no pause begins before the transaction ends."""
    lock_against_pause(session)
    return session.execute(select(PausedQueue.name).where(PausedQueue.name == name)).first() is not None


def pause(session: Session, name: str) -> None:
    """Pause a queue after waiting for claims in progress. Once this is committed, nothing is claimed."""
    locks.acquire(session, Lock.QUEUE_PAUSE)
    session.execute(insert(PausedQueue).values(name=name).on_conflict_do_nothing())


def resume(session: Session, name: str) -> bool:
    """Resume a queue. False if it was not paused."""
    statement = delete(PausedQueue).where(PausedQueue.name == name).returning(PausedQueue.name)
    return session.execute(statement).first() is not None


def list_reports(session: Session) -> list[QueueReport]:
    """Report the state of both queues. The maintenance queue has no rows in `jobs`, so its counts are 0."""
    paused = {row.name: row.paused_at for row in session.scalars(select(PausedQueue))}
    queued, running = (
        session.execute(select(func.count()).where(Job.state.in_(states))).scalar_one()
        for states in ((JobState.QUEUED,), RUNNING)
    )
    return [
        QueueReport(ENCODE_QUEUE, paused.get(ENCODE_QUEUE), queued, running),
        QueueReport(MAINTENANCE_QUEUE, paused.get(MAINTENANCE_QUEUE), 0, 0),
    ]
