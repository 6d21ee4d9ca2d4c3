"""Routes: crawls of the Hub, for admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, status

from app.api import pagination
from app.api.auth.admin import FOR_ADMINS, admin
from app.api.crawls import schemas
from app.api.limits import no_query
from app.api.problems import problems
from app.api.schemas import Id, PageQuery
from app.api.services.services import ServicesDep
from app.api.settings import SettingsDep
from catalog.errors import (
    BodyTooLarge,
    CrawlNotFound,
    CrawlOver,
    InvalidCursor,
    InvalidRepoId,
)
from catalog.hub_sync import crawls as crawl_service

router = APIRouter(prefix="/v1/admin/crawls", tags=["admin"], dependencies=[admin])


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[no_query],
    responses=problems(InvalidRepoId, BodyTooLarge, *FOR_ADMINS),
)
def start(request: schemas.CrawlRequest, services: ServicesDep) -> schemas.Crawl:
    """Walk through a list of the Hub's, and queue what is new or changed there."""
    return schemas.Crawl.of(crawl_service.start(services.database, request.source(), request.limits()))


@router.get("", responses=problems(InvalidCursor, *FOR_ADMINS))
def page(query: Annotated[PageQuery, Query()], services: ServicesDep) -> schemas.Crawls:
    """All crawls, the newest first."""
    found = crawl_service.page(services.database, before=pagination.decode(query.cursor), limit=query.limit)
    more = pagination.next_cursor(found, query.limit, lambda crawl: crawl.id)
    return schemas.Crawls(crawls=[schemas.Crawl.of(each) for each in found], next_cursor=more)


@router.get("/{crawl_id}", dependencies=[no_query], responses=problems(CrawlNotFound, *FOR_ADMINS))
def get(crawl_id: Id, services: ServicesDep, settings: SettingsDep) -> schemas.Crawl:
    """A crawl: how far it is, and what that costs."""
    return schemas.Crawl.of(*crawl_service.get(services.database, crawl_id, settings.heartbeat_limit))


@router.post("/{crawl_id}/pause", dependencies=[no_query], responses=problems(CrawlNotFound, CrawlOver, *FOR_ADMINS))
def pause(crawl_id: Id, services: ServicesDep) -> schemas.Crawl:
    """Stop after the last page that was stored. What is queued stays queued."""
    return schemas.Crawl.of(crawl_service.pause(services.database, crawl_id))


@router.post("/{crawl_id}/resume", dependencies=[no_query], responses=problems(CrawlNotFound, CrawlOver, *FOR_ADMINS))
def resume(crawl_id: Id, services: ServicesDep) -> schemas.Crawl:
    """Go on where it was: a paused crawl, or one that failed."""
    return schemas.Crawl.of(crawl_service.resume(services.database, crawl_id))


@router.post("/{crawl_id}/cancel", dependencies=[no_query], responses=problems(CrawlNotFound, CrawlOver, *FOR_ADMINS))
def cancel(crawl_id: Id, services: ServicesDep) -> schemas.Crawl:
    """End it, and its recurrence. What is queued stays queued."""
    return schemas.Crawl.of(crawl_service.cancel(services.database, crawl_id))
