"""Worker processes and their heartbeats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from catalog.database import seconds
from catalog.jobs.processes import has_ended
from catalog.tables import RUNNING, Job, Worker


def register(session: Session, host: str, pid: int, device: str, process: str | None = None) -> int:
    """Register a worker process, with its `catalog.jobs.processes.identity` if that is known. Returns its id."""
    worker = Worker(host=host, pid=pid, device=device, process=process)
    session.add(worker)
    session.flush()
    return worker.id


def record_heartbeat(session: Session, worker_id: int, status: Mapping[str, object] | None = None) -> None:
    """Record a worker's heartbeat, and its status if one is given."""
    values: dict[str, Any] = {} if status is None else {"status": dict(status)}
    session.execute(update(Worker).where(Worker.id == worker_id).values(heartbeat_at=func.now(), **values))


def is_beating(session: Session, worker_id: int, max_silence: float) -> bool:
    """Whether a worker has sent a heartbeat in the last `max_silence` seconds."""
    recent = Worker.heartbeat_at > func.now() - seconds(max_silence)
    return session.scalar(select(Worker.id).where(Worker.id == worker_id, recent)) is not None


def mark_stopped(session: Session, *worker_ids: int) -> None:
    """Mark workers as stopped: they no longer count as alive."""
    session.execute(update(Worker).where(Worker.id.in_(worker_ids)).values(stopped_at=func.now()))


def list_ended(session: Session) -> list[int]:
    """Workers on this machine whose process has ended without being marked as stopped. A dead worker on another machine
    is detected only by its missing heartbeat.
    """
    unstopped = select(Worker.id, Worker.process).where(Worker.stopped_at.is_(None), Worker.process.is_not(None))
    return [worker_id for worker_id, process in session.execute(unstopped) if process and has_ended(process)]


def list_alive(session: Session, heartbeat_timeout: float) -> list[Worker]:
    """Workers with a heartbeat in the last `heartbeat_timeout` seconds, except those whose process on this machine has
    ended.
    """
    recent = func.now() - Worker.heartbeat_at <= seconds(heartbeat_timeout)
    workers = session.scalars(select(Worker).where(Worker.stopped_at.is_(None), recent).order_by(Worker.id))
    return [worker for worker in workers if worker.process is None or not has_ended(worker.process)]


@dataclass(frozen=True)
class LoadingDeath:
    """A worker that died while it loaded a base, and whether nothing else ran: it had a single job."""

    worker_id: int
    base_repo: str
    base_sha: str
    alone: bool


def start_loading(session: Session, worker_id: int, base_repo: str, base_sha: str) -> None:
    """Note that a worker is loading a base, whose files are to blame if it dies now."""
    statement = update(Worker).where(Worker.id == worker_id)
    session.execute(statement.values(loading_repo=base_repo, loading_sha=base_sha))


def stop_loading(session: Session, worker_ids: Sequence[int]) -> list[LoadingDeath]:
    """Note that workers are loading no base. Returns what they were loading."""
    loading = select(Worker).where(Worker.id.in_(worker_ids), Worker.loading_repo.is_not(None)).with_for_update()
    workers = session.scalars(loading, execution_options={"populate_existing": True}).all()
    deaths = []
    for worker in workers:
        running = select(func.count()).where(Job.worker_id == worker.id, Job.state.in_(RUNNING))
        alone = session.execute(running).scalar_one() == 1
        deaths.append(LoadingDeath(worker.id, worker.loading_repo or "", worker.loading_sha or "", alone))
        worker.loading_repo = worker.loading_sha = None
    return deaths
