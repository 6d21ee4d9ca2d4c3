"""Crawls. A change of state is one statement that checks the state before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import case, func, null, select, text, update
from sqlalchemy.orm import Session

from catalog import locks
from catalog.database import ErrorRecord, newest_first, seconds
from catalog.errors import CatalogError, CrawlNotFound, HubTokenInvalid
from catalog.locks import Lock
from catalog.tables import Crawl, CrawlState, Job, JobState

ACTIVE = (CrawlState.QUEUED, CrawlState.RUNNING)
_COUNTS = (
    "listing",
    "pages",
    "listed",
    "queued",
    "gated",
    "unchanged",
    "skipped",
    "blocked",
    "size",
    "sized",
    "attempts",
)
_RUN_COLUMNS = ("cursor", "wait_until", "error_code", "error_message", "started_at", "finished_at", "next_at")


def create(session: Session, **values: Any) -> Crawl:
    crawl = Crawl(**values)
    session.add(crawl)
    session.flush()
    session.refresh(crawl)
    return crawl


def get(session: Session, crawl_id: int, *, lock: bool = False) -> Crawl:
    """A crawl; with `lock`, its row is locked until the transaction ends. Raises `CrawlNotFound`."""
    crawl = session.get(Crawl, crawl_id, populate_existing=True, with_for_update=lock or None)
    if crawl is None:
        raise CrawlNotFound(f"Crawl {crawl_id} does not exist. GET /v1/admin/crawls lists all crawls.")
    return crawl


def list_page(session: Session, *, before: int | None, limit: int) -> list[Crawl]:
    """Up to `limit` crawls with an id below `before`, newest first."""
    return list(session.scalars(newest_first(select(Crawl), Crawl.id, before, limit)))


def set_state(session: Session, crawl_id: int, states: Sequence[CrawlState], state: CrawlState, **values: Any) -> bool:
    """Change the state of a crawl that is in one of `states`. False if it is in another state."""
    statement = update(Crawl).where(Crawl.id == crawl_id, Crawl.state.in_(states)).values(state=state, **values)
    return session.execute(statement.returning(Crawl.id)).first() is not None


def try_lock(session: Session) -> bool:
    """Acquire the lock of the crawler until the transaction ends. False if another process holds it."""
    return locks.try_acquire(session, Lock.CRAWLS)


def find_next_due(session: Session, *, queue_full: bool) -> int | None:
    """The id of the active crawl with the oldest step; None if none is due. If the queue is full, only of a dry run."""
    statement = (
        select(Crawl.id)
        .where(Crawl.state.in_(ACTIVE), func.coalesce(Crawl.wait_until, func.now()) <= func.now())
        .order_by(Crawl.stepped_at.asc().nulls_first(), Crawl.id)
        .limit(1)
    )
    if queue_full:
        statement = statement.where(Crawl.dry_run)
    return session.execute(statement).scalar_one_or_none()


def begin_step(session: Session, crawl_id: int) -> Crawl | None:
    """Mark a crawl as running, and return it. None if it was stopped since it was selected."""
    values = {"started_at": func.coalesce(Crawl.started_at, func.now()), "stepped_at": func.now()}
    return get(session, crawl_id) if set_state(session, crawl_id, ACTIVE, CrawlState.RUNNING, **values) else None


def defer(session: Session, crawl_id: int, error: CatalogError, delay: float) -> None:
    """Schedule another attempt at the next page in `delay` seconds."""
    wait_until = func.now() + seconds(delay)
    set_state(
        session, crawl_id, ACTIVE, CrawlState.RUNNING,
        attempts=Crawl.attempts + 1, wait_until=wait_until, **ErrorRecord.from_error(error).columns(),
    )  # fmt: skip


def fail(session: Session, crawl_id: int, error: CatalogError) -> None:
    """Mark a crawl as failed. A recurring crawl keeps its schedule."""
    set_state(
        session, crawl_id, ACTIVE, CrawlState.FAILED,
        finished_at=func.now(), next_at=_next_at(), **ErrorRecord.from_error(error).columns(),
    )  # fmt: skip


def finish(session: Session, crawl_id: int) -> None:
    """Mark a crawl as done, and schedule its next run if it recurs."""
    values = {"finished_at": func.now(), "covered_at": Crawl.started_at, "next_at": _next_at()}
    set_state(session, crawl_id, ACTIVE, CrawlState.DONE, **values)


def restart_due(session: Session) -> list[int]:
    """Queue the recurring crawls that are due, limited to changes since their last complete run. Returns their ids."""
    counts = dict.fromkeys(_COUNTS, 0)
    reset = dict.fromkeys(_RUN_COLUMNS)
    statement = update(Crawl).where(Crawl.state.in_((CrawlState.DONE, CrawlState.FAILED)), Crawl.next_at <= func.now())
    ids = case((Crawl.source.has_key("collection"), null()), else_=Crawl.ids)
    values = {
        **counts,
        **reset,
        "ids": ids,
        "state": CrawlState.QUEUED,
        "since": Crawl.covered_at,
        "run": Crawl.run + 1,
    }
    return list(session.execute(statement.values(**values).returning(Crawl.id)).scalars())


def count_queued_jobs(session: Session, limit: int) -> int:
    """The number of queued jobs, counted up to `limit`, without those that wait for a valid token of the service."""
    waits_for_token = func.coalesce(Job.error_code, "") == HubTokenInvalid.code
    queued = select(Job.id).where(Job.state == JobState.QUEUED, ~waits_for_token).limit(limit).subquery()
    return session.execute(select(func.count()).select_from(queued)).scalar_one()


_PACE = text("""
    SELECT sum(jobs)::float8 / nullif(sum(seconds), 0) FROM (
        SELECT count(*) AS jobs, extract(epoch FROM max(finished_at) - started_at)::float8 AS seconds
        FROM (
            SELECT worker_id, started_at, finished_at FROM jobs WHERE state = 'done' ORDER BY id DESC LIMIT 500
        ) AS last
        GROUP BY worker_id, started_at
    ) AS batches
""")


def jobs_per_second(session: Session) -> float | None:
    """Jobs per second and worker over the last 500 successful jobs; None if there are none."""
    return session.execute(_PACE).scalar_one_or_none()


def _next_at() -> Any:
    """The start of the next run; null if the crawl does not recur."""
    return func.now() + seconds(Crawl.every)
