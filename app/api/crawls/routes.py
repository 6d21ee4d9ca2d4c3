"""Routes: crawls of the Hub, for admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, status

from app.api import pagination
from app.api.auth.admin import admin
from app.api.crawls import schemas
from app.api.limits import no_query
from app.api.problems import problems
from app.api.schemas import PageQuery
from app.api.services.services import ServicesDep
from catalog.errors import (
    AdminKeyRequired,
    AdminOnly,
    BodyTooLarge,
    CrawlNotFound,
    CrawlOver,
    InvalidCursor,
    InvalidRepoId,
)
from catalog.hub_sync import crawls as crawl_service
from catalog.hub_sync.repository import crawls
from catalog.settings import settings

router = APIRouter(prefix="/v1/admin/crawls", tags=["admin"], dependencies=[admin])
Number = Annotated[int, Path(ge=1, lt=2**63)]
FOR_ADMINS = (AdminOnly, AdminKeyRequired)


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
    with services.database.transaction() as session:
        found = crawls.page(session, before=pagination.decode(query.cursor), limit=query.limit)
    more = pagination.encode(found[-1].id) if len(found) == query.limit else None
    return schemas.Crawls(crawls=[schemas.Crawl.of(each) for each in found], next_cursor=more)


@router.get("/{crawl_id}", dependencies=[no_query], responses=problems(CrawlNotFound, *FOR_ADMINS))
def get(crawl_id: Number, services: ServicesDep) -> schemas.Crawl:
    """A crawl: how far it is, and what that costs."""
    with services.database.transaction() as session:
        crawl = crawls.get(session, crawl_id)
        return schemas.Crawl.of(crawl, crawl_service.estimate(session, crawl, settings().heartbeat_limit))


@router.post("/{crawl_id}/pause", dependencies=[no_query], responses=problems(CrawlNotFound, CrawlOver, *FOR_ADMINS))
def pause(crawl_id: Number, services: ServicesDep) -> schemas.Crawl:
    """Stop after the last page that was stored. What is queued stays queued."""
    return schemas.Crawl.of(crawl_service.pause(services.database, crawl_id))


@router.post("/{crawl_id}/resume", dependencies=[no_query], responses=problems(CrawlNotFound, CrawlOver, *FOR_ADMINS))
def resume(crawl_id: Number, services: ServicesDep) -> schemas.Crawl:
    """Go on where it was: a paused crawl, or one that failed."""
    return schemas.Crawl.of(crawl_service.resume(services.database, crawl_id))


@router.post("/{crawl_id}/cancel", dependencies=[no_query], responses=problems(CrawlNotFound, CrawlOver, *FOR_ADMINS))
def cancel(crawl_id: Number, services: ServicesDep) -> schemas.Crawl:
    """End it, and its recurrence. What is queued stays queued."""
    return schemas.Crawl.of(crawl_service.cancel(services.database, crawl_id))
