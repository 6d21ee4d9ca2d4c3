"""Crawls. A change of state is one statement that names the states it starts from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import case, func, null, select, text, update
from sqlalchemy.orm import Session

from catalog import locks
from catalog.database import seconds
from catalog.error_record import ErrorRecord
from catalog.errors import CatalogError, CrawlNotFound
from catalog.locks import Lock
from catalog.repository import newest_first
from catalog.tables import Crawl, CrawlState, Job, JobState

ACTIVE = (CrawlState.QUEUED, CrawlState.RUNNING)
_COUNTS = ("listing", "pages", "listed", "queued", "unchanged", "skipped", "size", "sized", "attempts")
_OF_A_RUN = ("cursor", "wait_until", "error_code", "error_message", "started_at", "finished_at", "next_at")


def add(session: Session, **values: Any) -> Crawl:
    crawl = Crawl(**values)
    session.add(crawl)
    session.flush()
    session.refresh(crawl)
    return crawl


def get(session: Session, crawl_id: int, *, lock: bool = False) -> Crawl:
    """With `lock`, nobody else changes it until the transaction ends. Raises `CrawlNotFound`."""
    crawl = session.get(Crawl, crawl_id, populate_existing=True, with_for_update=lock or None)
    if crawl is None:
        raise CrawlNotFound(f"There is no crawl {crawl_id}. GET /v1/admin/crawls lists them.")
    return crawl


def page(session: Session, *, before: int | None, limit: int) -> list[Crawl]:
    """Up to `limit` crawls with an id below `before`, newest first."""
    return list(session.scalars(newest_first(select(Crawl), Crawl.id, before, limit)))


def change(session: Session, crawl_id: int, states: Sequence[CrawlState], state: CrawlState, **values: Any) -> bool:
    """Move a crawl that is in one of `states`. False where it is in none of them."""
    statement = update(Crawl).where(Crawl.id == crawl_id, Crawl.state.in_(states)).values(state=state, **values)
    return session.execute(statement.returning(Crawl.id)).first() is not None


def try_lead(session: Session) -> bool:
    """Become the only process that crawls until the transaction ends; False where there is one."""
    return locks.try_acquire(session, Lock.CRAWLS)


def next_due(session: Session, *, room: bool) -> int | None:
    """The crawl whose turn it is: the one that has not moved for longest. Without `room` in the queue, a dry run."""
    statement = (
        select(Crawl.id)
        .where(Crawl.state.in_(ACTIVE), func.coalesce(Crawl.wait_until, func.now()) <= func.now())
        .order_by(Crawl.stepped_at.asc().nulls_first(), Crawl.id)
        .limit(1)
    )
    if not room:
        statement = statement.where(Crawl.dry_run)
    return session.execute(statement).scalar_one_or_none()


def go_on(session: Session, crawl_id: int) -> Crawl | None:
    """Take a crawl's next step; None where it was stopped in the meantime."""
    values = {"started_at": func.coalesce(Crawl.started_at, func.now()), "stepped_at": func.now()}
    return get(session, crawl_id) if change(session, crawl_id, ACTIVE, CrawlState.RUNNING, **values) else None


def defer(session: Session, crawl_id: int, error: CatalogError, delay: float) -> None:
    """The next page could not be had: again in `delay` seconds."""
    wait_until = func.now() + seconds(delay)
    change(
        session, crawl_id, ACTIVE, CrawlState.RUNNING,
        attempts=Crawl.attempts + 1, wait_until=wait_until, **ErrorRecord.from_error(error).columns(),
    )  # fmt: skip


def fail(session: Session, crawl_id: int, error: CatalogError) -> None:
    """A recurring one begins anew all the same."""
    change(
        session, crawl_id, ACTIVE, CrawlState.FAILED,
        finished_at=func.now(), next_at=_next_at(), **ErrorRecord.from_error(error).columns(),
    )  # fmt: skip


def finish(session: Session, crawl_id: int) -> None:
    values = {"finished_at": func.now(), "covered_at": Crawl.started_at, "next_at": _next_at()}
    change(session, crawl_id, ACTIVE, CrawlState.DONE, **values)


def begin_anew(session: Session) -> list[int]:
    """Queue the recurring crawls whose time has come. What an earlier run covered is looked at no further back."""
    zero = dict.fromkeys(_COUNTS, 0)
    fresh = dict.fromkeys(_OF_A_RUN)
    statement = update(Crawl).where(Crawl.state.in_((CrawlState.DONE, CrawlState.FAILED)), Crawl.next_at <= func.now())
    ids = case((Crawl.source.has_key("collection"), null()), else_=Crawl.ids)
    values = {**zero, **fresh, "ids": ids, "state": CrawlState.QUEUED, "since": Crawl.covered_at, "run": Crawl.run + 1}
    return list(session.execute(statement.values(**values).returning(Crawl.id)).scalars())


def waiting_jobs(session: Session, enough: int) -> int:
    """How many jobs wait for a worker, counted no further than `enough`."""
    some = select(Job.id).where(Job.state == JobState.QUEUED).limit(enough).subquery()
    return session.execute(select(func.count()).select_from(some)).scalar_one()


_PACE = text("""
    SELECT sum(jobs)::float8 / nullif(sum(seconds), 0) FROM (
        SELECT count(*) AS jobs, extract(epoch FROM max(finished_at) - started_at)::float8 AS seconds
        FROM (
            SELECT worker_id, started_at, finished_at FROM jobs WHERE state = 'done' ORDER BY id DESC LIMIT 500
        ) AS last
        GROUP BY worker_id, started_at
    ) AS batches
""")


def pace(session: Session) -> float | None:
    """Jobs a second of one worker, over the last 500 that ended well; None before there were any."""
    return session.execute(_PACE).scalar_one_or_none()


def _next_at() -> Any:
    """Null where it does not recur."""
    return func.now() + seconds(Crawl.every)
