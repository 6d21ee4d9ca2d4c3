"""Crawls as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field

from app.api.jobs.schemas import JobError
from app.api.schemas import FIRST_MISTAKE, NO_NUL, Strict
from catalog import tables
from catalog.hub_sync import crawls as crawl_service
from catalog.tables import CrawlState

Name = Annotated[str, Field(max_length=200, pattern=NO_NUL)]


class CrawlRequest(Strict):
    """Exactly one of `base`, `owner`, `tag`, `collection` and `ids`."""

    base: Name | None = Field(None, description="The fine-tunes of this base model.")
    relations: Annotated[list[Literal["adapter", "finetune"]], FIRST_MISTAKE] = Field(
        ["adapter", "finetune"], min_length=1, max_length=2, description="With `base`: which kinds of them."
    )
    owner: Name | None = Field(None, min_length=1, description="All models of a user or an organisation.")
    tag: Name | None = Field(None, min_length=1, description="All models with a tag.")
    collection: Name | None = Field(
        None, pattern=r"^[\w.-]+/[\w.-]+$", description="Slug of a collection: `OWNER/NAME-ID`."
    )
    ids: Annotated[list[Name], FIRST_MISTAKE] | None = Field(
        None, min_length=1, max_length=crawl_service.MAX_IDS, description="These repos."
    )
    limit: int | None = Field(None, ge=1, lt=2**53, description="Queue at most so many in one run.")
    min_downloads: int | None = Field(None, ge=0, lt=2**53, description="Leave out what was downloaded less.")
    dry_run: bool = Field(False, description="Queue nothing and store nothing: count, and estimate.")
    every_hours: float | None = Field(None, ge=1 / 60, le=24 * 366, description="Begin anew so long after each run.")

    def source(self) -> crawl_service.Source:
        """Raises `InvalidInput` and `InvalidRepoId`."""
        ids = tuple(self.ids) if self.ids is not None else None
        relations = tuple(dict.fromkeys(self.relations))
        named = {name: getattr(self, name) for name in ("base", "owner", "tag", "collection")}
        return crawl_service.Source(**named, relations=relations, ids=ids)

    def limits(self) -> crawl_service.Limits:
        every = round(self.every_hours * 3600) if self.every_hours else None
        return crawl_service.Limits(self.limit, self.min_downloads, self.dry_run, every)


class Estimate(BaseModel):
    """What the queued ones cost."""

    bytes: int | None = Field(description="To download; null where the Hub tells no sizes.")
    hours: float = Field(description="Until they are embedded, with the workers that are alive now.")
    measured: bool = Field(description="Whether that rests on jobs done here; if not, on a guess.")
    workers: int


class Crawl(BaseModel):
    id: int
    source: dict[str, Any]
    ids: int | None = Field(description="How many repos are asked for one by one; null for lists.")
    state: CrawlState
    dry_run: bool
    limit: int | None
    min_downloads: int | None
    every_hours: float | None
    run: int = Field(description="Which run of a recurring crawl this is.")
    pages: int
    listed: int = Field(description="Repos seen.")
    queued: int = Field(description="Jobs made; in a dry run, that would have been made.")
    unchanged: int = Field(description="Repos that are indexed, or waited for, as they are.")
    skipped: int = Field(description="Repos left out: private, too few downloads, not readable.")
    attempts: int = Field(description="At the page that comes next.")
    wait_until: datetime | None
    error: JobError | None
    estimate: Estimate | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    next_at: datetime | None = Field(description="When it begins anew.")

    @classmethod
    def of(cls, crawl: tables.Crawl, estimate: crawl_service.Estimate | None = None) -> Self:
        elsewhere = ("ids", "limit", "every_hours", "error", "estimate")
        own = {name: getattr(crawl, name) for name in cls.model_fields if name not in elsewhere}
        return cls(
            **own,
            ids=len(crawl.ids) if crawl.ids is not None else None,
            limit=crawl.max_models,
            every_hours=crawl.every / 3600 if crawl.every else None,
            error=JobError.of(crawl.error_code, crawl.error_message),
            estimate=_estimate(estimate),
        )


class Crawls(BaseModel):
    crawls: list[Crawl]
    next_cursor: str | None


def _estimate(found: crawl_service.Estimate | None) -> Estimate | None:
    if found is None:
        return None
    return Estimate(bytes=found.size, hours=found.hours, measured=found.measured, workers=found.workers)
