"""The tables of crawls, and of the names that models had before."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from catalog.tables.base import Base, one_of


class CrawlState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"  # a recurring one begins anew at `next_at`
    FAILED = "failed"
    CANCELLED = "cancelled"


class Crawl(Base):
    """A walk through a list of the Hub's. `listing` and `cursor` say which page comes next; they move in the
    transaction that stores what the page before told, so a crawl that dies goes on where it was.
    """

    __tablename__ = "crawls"
    __table_args__ = (
        CheckConstraint(one_of("state", CrawlState), name="state"),
        Index("ix_crawls_active", "stepped_at", postgresql_where=text("state IN ('queued', 'running')")),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    source: Mapped[dict[str, Any]] = mapped_column(JSONB)  # `catalog.hub_sync.crawls.Source`
    ids: Mapped[list[str] | None] = mapped_column(JSONB(none_as_null=True))  # what a collection held, or a file
    state: Mapped[str] = mapped_column(server_default=CrawlState.QUEUED)
    dry_run: Mapped[bool]
    max_models: Mapped[int | None]  # queued in one run
    min_downloads: Mapped[int | None]
    every: Mapped[int | None]  # seconds between runs
    run: Mapped[int] = mapped_column(server_default=text("1"))

    listing: Mapped[int] = mapped_column(server_default=text("0"))  # of the source's lists, the one that it is in
    cursor: Mapped[str | None]  # the next page's URL, or the place in `ids`; None: the first
    since: Mapped[datetime | None]  # this run ends at what was changed on the Hub before

    pages: Mapped[int] = mapped_column(server_default=text("0"))
    listed: Mapped[int] = mapped_column(server_default=text("0"))
    queued: Mapped[int] = mapped_column(server_default=text("0"))  # in a dry run: would have been
    unchanged: Mapped[int] = mapped_column(server_default=text("0"))
    skipped: Mapped[int] = mapped_column(server_default=text("0"))
    size: Mapped[int] = mapped_column(server_default=text("0"))  # bytes, of the `sized` ones among the queued
    sized: Mapped[int] = mapped_column(server_default=text("0"))

    attempts: Mapped[int] = mapped_column(server_default=text("0"))  # at the page that comes next
    wait_until: Mapped[datetime | None]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]  # this run
    stepped_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    covered_at: Mapped[datetime | None]  # when the last run that came to its end began
    next_at: Mapped[datetime | None]


class FormerName(Base):
    """A name that a model had before it was renamed on the Hub."""

    __tablename__ = "former_names"

    repo_id: Mapped[str] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
