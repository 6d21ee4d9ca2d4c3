"""Queues that may be paused: then nothing more of them is claimed, and what runs goes on to its end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from catalog import locks
from catalog.locks import Lock
from catalog.queue import ENCODE_QUEUE, UPKEEP_QUEUE
from catalog.tables import RUNNING, Job, JobState, PausedQueue


@dataclass(frozen=True)
class QueueReport:
    """A queue as it is now. Drained: nothing of it runs, and nothing will until it is resumed."""

    name: str
    paused_at: datetime | None
    queued: int
    running: int

    @property
    def drained(self) -> bool:
        return self.paused_at is not None and self.running == 0


def hold_off_pauses(session: Session) -> None:
    """A claim that follows in the same transaction is over before a pause begins."""
    locks.acquire_shared(session, Lock.QUEUE_PAUSE)


def is_paused(session: Session, name: str) -> bool:
    """And no pause begins before the transaction ends."""
    hold_off_pauses(session)
    return session.execute(select(PausedQueue.name).where(PausedQueue.name == name)).first() is not None


def pause(session: Session, name: str) -> None:
    """Waits for claims that are on their way; nothing is claimed once this is committed."""
    locks.acquire(session, Lock.QUEUE_PAUSE)
    session.execute(insert(PausedQueue).values(name=name).on_conflict_do_nothing())


def resume(session: Session, name: str) -> bool:
    """False when it was not paused."""
    statement = delete(PausedQueue).where(PausedQueue.name == name).returning(PausedQueue.name)
    return session.execute(statement).first() is not None


def report(session: Session) -> list[QueueReport]:
    """Of the queue of upkeep, which holds no jobs, it is known whether it is paused alone."""
    paused = {row.name: row.paused_at for row in session.scalars(select(PausedQueue))}
    queued, running = (
        session.execute(select(func.count()).where(Job.state.in_(states))).scalar_one()
        for states in ((JobState.QUEUED,), RUNNING)
    )
    return [
        QueueReport(ENCODE_QUEUE, paused.get(ENCODE_QUEUE), queued, running),
        QueueReport(UPKEEP_QUEUE, paused.get(UPKEEP_QUEUE), 0, 0),
    ]
