"""Crawls, and former names of models."""

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
    DONE = "done"  # a recurring crawl starts again at `next_at`
    FAILED = "failed"
    CANCELLED = "cancelled"


class Crawl(Base):
    """A crawl of lists of the Hub. `listing` and `cursor` say which page is next. They move in the transaction that
    stores a page, so a crawl whose worker dies continues at the next page.
    """

    __tablename__ = "crawls"
    __table_args__ = (
        CheckConstraint(one_of("state", CrawlState), name="state"),
        Index("ix_crawls_active", "stepped_at", postgresql_where=text("state IN ('queued', 'running')")),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    source: Mapped[dict[str, Any]] = mapped_column(JSONB)  # `catalog.hub_sync.crawls.CrawlSource`
    ids: Mapped[list[str] | None] = mapped_column(JSONB(none_as_null=True))  # of a collection or a list
    state: Mapped[str] = mapped_column(server_default=CrawlState.QUEUED)
    dry_run: Mapped[bool]
    max_models: Mapped[int | None]  # to queue in one run
    min_downloads: Mapped[int | None]
    include_removed: Mapped[bool] = mapped_column(server_default=text("false"))  # models that an admin removed, too
    every: Mapped[int | None]  # seconds between runs
    run: Mapped[int] = mapped_column(server_default=text("1"))

    listing: Mapped[int] = mapped_column(server_default=text("0"))  # index of the current one among the source's lists
    cursor: Mapped[str | None]  # the URL of the next page, or the index in `ids`; None: the first page
    since: Mapped[datetime | None]  # this run ends at repos that were last changed before

    pages: Mapped[int] = mapped_column(server_default=text("0"))
    listed: Mapped[int] = mapped_column(server_default=text("0"))
    queued: Mapped[int] = mapped_column(server_default=text("0"))  # a dry run counts the jobs that it would create
    gated: Mapped[int] = mapped_column(server_default=text("0"))  # of the queued repos
    unchanged: Mapped[int] = mapped_column(server_default=text("0"))
    skipped: Mapped[int] = mapped_column(server_default=text("0"))
    blocked: Mapped[int] = mapped_column(server_default=text("0"))  # left out by a block, or removed by an admin
    size: Mapped[int] = mapped_column(server_default=text("0"))  # bytes, summed over the `sized` repos
    sized: Mapped[int] = mapped_column(server_default=text("0"))  # queued repos with a known size

    attempts: Mapped[int] = mapped_column(server_default=text("0"))  # at fetching the next page
    wait_until: Mapped[datetime | None]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]  # of this run
    stepped_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    covered_at: Mapped[datetime | None]  # start of the last complete run
    next_at: Mapped[datetime | None]


class FormerName(Base):
    """A name that a model had before it was renamed on the Hub."""

    __tablename__ = "former_names"

    repo_id: Mapped[str] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
