"""Routes of crawls of the Hub, for admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, status

from app.api import pagination
from app.api.crawls import schemas
from app.api.limits import no_query
from app.api.problems import problems
from app.api.schemas import Id, PageQuery
from app.api.services.services import ServicesDep
from app.api.settings import SettingsDep
from catalog.errors import (
    BodyTooLarge,
    CrawlFinished,
    CrawlNotFound,
    InvalidCursor,
    InvalidRepoId,
)
from catalog.hub_sync import crawls as crawl_service

router = APIRouter(
    prefix="/v1/admin/crawls",
    tags=["admin"],
)


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[no_query],
    responses=problems(InvalidRepoId, BodyTooLarge),
)
def create_crawl(request: schemas.CrawlRequest, services: ServicesDep) -> schemas.Crawl:
    """Create a crawl, which queues the new and changed repos in a list of the Hub."""
    return schemas.Crawl.from_row(crawl_service.create(services.database, request.source(), request.limits()))


@router.get("", responses=problems(InvalidCursor))
def list_crawls(query: Annotated[PageQuery, Query()], services: ServicesDep) -> schemas.Crawls:
    """List all crawls, newest first."""
    crawls = crawl_service.list_page(services.database, before=pagination.decode(query.cursor), limit=query.limit)
    next_cursor = pagination.next_cursor(crawls, query.limit, lambda crawl: crawl.id)
    return schemas.Crawls(crawls=[schemas.Crawl.from_row(crawl) for crawl in crawls], next_cursor=next_cursor)


@router.get("/{crawl_id}", dependencies=[no_query], responses=problems(CrawlNotFound))
def get_crawl(crawl_id: Id, services: ServicesDep, settings: SettingsDep) -> schemas.Crawl:
    """Get a crawl, its progress and its estimated cost."""
    return schemas.Crawl.from_row(*crawl_service.get(services.database, crawl_id, settings.heartbeat_timeout))


@router.post("/{crawl_id}/pause", dependencies=[no_query], responses=problems(CrawlNotFound, CrawlFinished))
def pause_crawl(crawl_id: Id, services: ServicesDep) -> schemas.Crawl:
    """Pause a crawl after the last stored page. Queued jobs stay queued."""
    return schemas.Crawl.from_row(crawl_service.pause(services.database, crawl_id))


@router.post("/{crawl_id}/resume", dependencies=[no_query], responses=problems(CrawlNotFound, CrawlFinished))
def resume_crawl(crawl_id: Id, services: ServicesDep) -> schemas.Crawl:
    """Continue a paused or failed crawl where it stopped."""
    return schemas.Crawl.from_row(crawl_service.resume(services.database, crawl_id))


@router.post("/{crawl_id}/cancel", dependencies=[no_query], responses=problems(CrawlNotFound, CrawlFinished))
def cancel_crawl(crawl_id: Id, services: ServicesDep) -> schemas.Crawl:
    """Cancel a crawl and its recurrence. Queued jobs stay queued."""
    return schemas.Crawl.from_row(crawl_service.cancel(services.database, crawl_id))
