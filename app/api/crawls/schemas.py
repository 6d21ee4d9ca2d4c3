"""JSON of crawls."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field

from app.api.jobs.schemas import JobError
from app.api.schemas import FIRST_ERROR_ONLY, NO_NUL, Strict
from catalog import tables
from catalog.auth.viewer import ADMIN
from catalog.hub_sync import crawls as crawl_service
from catalog.tables import CrawlState

Name = Annotated[str, Field(max_length=200, pattern=NO_NUL)]


class CrawlRequest(Strict):
    """The repos to crawl, given by exactly one of `base`, `owner`, `tag`, `collection` and `ids`, and the limits."""

    base: Name | None = Field(None, description="Crawl the fine-tunes of this base model.")
    relations: Annotated[list[Literal["adapter", "finetune"]], FIRST_ERROR_ONLY] = Field(
        ["adapter", "finetune"], min_length=1, max_length=2, description="With `base`: the kinds of fine-tunes."
    )
    owner: Name | None = Field(None, min_length=1, description="Crawl all models of a user or an organization.")
    tag: Name | None = Field(None, min_length=1, description="Crawl all models with this tag.")
    collection: Name | None = Field(
        None, pattern=r"^[\w.-]+/[\w.-]+$", description="Crawl the models of a collection: `OWNER/NAME-ID`."
    )
    ids: Annotated[list[Name], FIRST_ERROR_ONLY] | None = Field(
        None, min_length=1, max_length=crawl_service.MAX_IDS, description="Crawl these repos."
    )
    limit: int | None = Field(None, ge=1, lt=2**53, description="Maximum number of repos to queue in one run.")
    min_downloads: int | None = Field(None, ge=0, lt=2**53, description="Skip repos with fewer downloads per month.")
    dry_run: bool = Field(False, description="Only count repos and estimate the cost; queue and store nothing.")
    include_removed: bool = Field(False, description="Queue models again that an admin removed, or a former block.")
    every_hours: float | None = Field(
        None, ge=1 / 60, le=24 * 366, description="Hours between the end of a run and the next."
    )

    def source(self) -> crawl_service.CrawlSource:
        """Raises `InvalidInput` and `InvalidRepoId`."""
        ids = tuple(self.ids) if self.ids is not None else None
        relations = tuple(dict.fromkeys(self.relations))
        criteria = {name: getattr(self, name) for name in ("base", "owner", "tag", "collection")}
        return crawl_service.CrawlSource(**criteria, relations=relations, ids=ids)

    def limits(self) -> crawl_service.CrawlLimits:
        every = round(self.every_hours * 3600) if self.every_hours else None
        return crawl_service.CrawlLimits(self.limit, self.min_downloads, self.dry_run, self.include_removed, every)


class Estimate(BaseModel):
    """The estimated cost of the queued repos."""

    bytes: int | None = Field(description="Bytes to download; null if the Hub does not provide sizes.")
    hours: float = Field(description="Hours until all of them are measured by the workers that are alive now.")
    measured: bool = Field(description="Whether the estimate is based on finished jobs; otherwise on an assumed pace.")
    workers: int

    @classmethod
    def from_result(cls, estimate: crawl_service.Estimate) -> Self:
        return cls(bytes=estimate.size, hours=estimate.hours, measured=estimate.measured, workers=estimate.workers)


class Crawl(BaseModel):
    id: int
    source: dict[str, Any]
    ids: int | None = Field(description="Number of repos that are requested one by one; null for lists.")
    state: CrawlState
    dry_run: bool
    include_removed: bool
    limit: int | None
    min_downloads: int | None
    every_hours: float | None
    run: int = Field(description="Number of this run of a recurring crawl, from 1.")
    pages: int
    listed: int = Field(description="Repos listed so far.")
    queued: int = Field(description="Jobs created; in a dry run, jobs that would have been created.")
    gated: int = Field(description="Of the queued repos, those that are gated: jobs need a token with access to them.")
    unchanged: int = Field(description="Repos whose commit is already indexed or queued.")
    skipped: int = Field(description="Repos left out: private, with too few downloads, or not parsable.")
    blocked: int = Field(description="Repos left out: an admin removed them, or a block applies to them.")
    attempts: int = Field(description="Attempts at fetching the next page.")
    wait_until: datetime | None
    error: JobError | None
    estimate: Estimate | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    next_at: datetime | None = Field(description="Start of the next run.")

    @classmethod
    def from_row(cls, crawl: tables.Crawl, estimate: crawl_service.Estimate | None = None) -> Self:
        computed = ("ids", "limit", "every_hours", "error", "estimate")
        columns = {name: getattr(crawl, name) for name in cls.model_fields if name not in computed}
        return cls(
            **columns,
            ids=len(crawl.ids) if crawl.ids is not None else None,
            limit=crawl.max_models,
            every_hours=crawl.every / 3600 if crawl.every else None,
            error=JobError.from_columns(crawl.error_code, crawl.error_message, ADMIN),
            estimate=Estimate.from_result(estimate) if estimate is not None else None,
        )


class Crawls(BaseModel):
    crawls: list[Crawl]
    next_cursor: str | None
