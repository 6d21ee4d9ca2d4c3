"""Routes: models measured anew, for admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, status

from app.api import pagination
from app.api.auth.admin import FOR_ADMINS, admin
from app.api.limits import no_query
from app.api.problems import problems
from app.api.reindexes import schemas
from app.api.schemas import Id, PageQuery
from app.api.services.services import ServicesDep
from app.api.settings import SettingsDep
from catalog.errors import (
    BodyTooLarge,
    InvalidCursor,
    InvalidRepoId,
    ReindexActive,
    ReindexIncomplete,
    ReindexNotFound,
    ReindexNotReady,
    ReindexOver,
    SpaceNotFound,
)
from catalog.reindexes import cutover, readiness
from catalog.reindexes import service as reindex_service

router = APIRouter(prefix="/v1/admin", tags=["admin"], dependencies=[admin])


@router.post(
    "/reindex",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[no_query],
    responses=problems(SpaceNotFound, InvalidRepoId, ReindexActive, BodyTooLarge, *FOR_ADMINS),
)
def start(request: schemas.ReindexRequest, services: ServicesDep) -> schemas.Reindex:
    """Measure models anew, into new spaces beside those that answer; one at a time."""
    return schemas.Reindex.of(reindex_service.start(services.database, request.selection()))


@router.get("/reindexes", responses=problems(InvalidCursor, *FOR_ADMINS))
def page(query: Annotated[PageQuery, Query()], services: ServicesDep) -> schemas.Reindexes:
    """All reindexes, the newest first."""
    found = reindex_service.page(services.database, before=pagination.decode(query.cursor), limit=query.limit)
    more = pagination.next_cursor(found, query.limit, lambda reindex: reindex.id)
    return schemas.Reindexes(reindexes=[schemas.Reindex.of(each) for each in found], next_cursor=more)


@router.get("/reindexes/{reindex_id}", dependencies=[no_query], responses=problems(ReindexNotFound, *FOR_ADMINS))
def get(reindex_id: Id, services: ServicesDep, settings: SettingsDep) -> schemas.Reindex:
    """A reindex: how far it is, what failed, and what is still to be built."""
    return schemas.Reindex.with_progress(readiness.progress(services.database, reindex_id, settings.index_exact_bytes))


@router.get("/reindexes/{reindex_id}/drift", dependencies=[no_query], responses=problems(ReindexNotFound, *FOR_ADMINS))
def drift(reindex_id: Id, services: ServicesDep) -> schemas.DriftReport:
    """How neighbours change, and what would be lost: of what is measured so far, or as it was when all was."""
    return schemas.DriftReport.of(*readiness.drift_report(services.database, reindex_id))


@router.post(
    "/reindexes/{reindex_id}/switch",
    dependencies=[no_query],
    responses=problems(
        ReindexNotFound, ReindexOver, ReindexNotReady, ReindexIncomplete, BodyTooLarge, *FOR_ADMINS
    ),
)  # fmt: skip
def switch(reindex_id: Id, request: schemas.Force, services: ServicesDep, settings: SettingsDep) -> schemas.Reindex:
    """Have the new spaces answer in place of the old ones, which are kept."""
    exact_bytes = settings.index_exact_bytes
    return schemas.Reindex.of(
        cutover.switch(services.database, reindex_id, force=request.force, exact_bytes=exact_bytes)
    )


@router.post(
    "/reindexes/{reindex_id}/rollback",
    dependencies=[no_query],
    responses=problems(ReindexNotFound, ReindexOver, ReindexIncomplete, BodyTooLarge, *FOR_ADMINS),
)
def roll_back(reindex_id: Id, request: schemas.Force, services: ServicesDep) -> schemas.Reindex:
    """After the switch have the old spaces answer again; before it throw away what was measured."""
    return schemas.Reindex.of(cutover.roll_back(services.database, reindex_id, force=request.force))


@router.post(
    "/reindexes/{reindex_id}/cancel",
    dependencies=[no_query],
    responses=problems(ReindexNotFound, ReindexOver, *FOR_ADMINS),
)
def cancel(reindex_id: Id, services: ServicesDep) -> schemas.Reindex:
    """End it before its switch: its jobs end, and what was measured is thrown away."""
    return schemas.Reindex.of(cutover.cancel(services.database, reindex_id))
