"""Worker processes and their heartbeats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from catalog.tables import Worker


def register(session: Session, host: str, pid: int, device: str) -> int:
    """A new worker process; returns its id."""
    worker = Worker(host=host, pid=pid, device=device)
    session.add(worker)
    session.flush()
    return worker.id


def beat(session: Session, worker_id: int, status: Mapping[str, object] | None = None) -> None:
    """A sign of life, and what the worker says of itself."""
    told: dict[str, Any] = {} if status is None else {"status": dict(status)}
    session.execute(update(Worker).where(Worker.id == worker_id).values(heartbeat_at=func.now(), **told))


def stop(session: Session, worker_id: int) -> None:
    session.execute(update(Worker).where(Worker.id == worker_id).values(stopped_at=func.now()))


def alive(session: Session, limit: float) -> list[Worker]:
    """Workers whose last heartbeat is at most `limit` seconds old."""
    fresh = func.now() - Worker.heartbeat_at <= func.make_interval(0, 0, 0, 0, 0, 0, limit)
    return list(session.scalars(select(Worker).where(Worker.stopped_at.is_(None), fresh).order_by(Worker.id)))
