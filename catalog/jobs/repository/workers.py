"""Worker processes and their heartbeats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from catalog.database import seconds
from catalog.jobs.processes import has_ended
from catalog.tables import Worker


def register(session: Session, host: str, pid: int, device: str, process: str | None = None) -> int:
    """A new worker process, with its `catalog.jobs.processes.identity` where that is known; returns its id."""
    worker = Worker(host=host, pid=pid, device=device, process=process)
    session.add(worker)
    session.flush()
    return worker.id


def beat(session: Session, worker_id: int, status: Mapping[str, object] | None = None) -> None:
    """A sign of life, and what the worker says of itself."""
    told: dict[str, Any] = {} if status is None else {"status": dict(status)}
    session.execute(update(Worker).where(Worker.id == worker_id).values(heartbeat_at=func.now(), **told))


def stop(session: Session, *worker_ids: int) -> None:
    """Note that workers are gone: they are shown as alive no more."""
    session.execute(update(Worker).where(Worker.id.in_(worker_ids)).values(stopped_at=func.now()))


def gone(session: Session) -> list[int]:
    """Workers that ran on this machine and have ended without a word. Those on other machines are known by their
    heartbeats alone.
    """
    unstopped = select(Worker.id, Worker.process).where(Worker.stopped_at.is_(None), Worker.process.is_not(None))
    return [worker_id for worker_id, process in session.execute(unstopped) if process and has_ended(process)]


def alive(session: Session, limit: float) -> list[Worker]:
    """Workers whose last heartbeat is at most `limit` seconds old, without those of this machine that have ended."""
    fresh = func.now() - Worker.heartbeat_at <= seconds(limit)
    found = session.scalars(select(Worker).where(Worker.stopped_at.is_(None), fresh).order_by(Worker.id))
    return [worker for worker in found if worker.process is None or not has_ended(worker.process)]
