"""Routes: models measured anew, for admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, status

from app.api import pagination
from app.api.auth.admin import admin
from app.api.limits import no_query
from app.api.problems import problems
from app.api.reindexes import schemas
from app.api.schemas import PageQuery
from app.api.services.services import ServicesDep
from catalog.errors import (
    AdminKeyRequired,
    AdminOnly,
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
from catalog.reindexes.repository import reindexes
from catalog.settings import settings

router = APIRouter(prefix="/v1/admin", tags=["admin"], dependencies=[admin])
Number = Annotated[int, Path(ge=1, lt=2**63)]
FOR_ADMINS = (AdminOnly, AdminKeyRequired)


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
    with services.database.transaction() as session:
        found = reindexes.page(session, before=pagination.decode(query.cursor), limit=query.limit)
    more = pagination.encode(found[-1].id) if len(found) == query.limit else None
    return schemas.Reindexes(reindexes=[schemas.Reindex.of(each) for each in found], next_cursor=more)


@router.get("/reindexes/{reindex_id}", dependencies=[no_query], responses=problems(ReindexNotFound, *FOR_ADMINS))
def get(reindex_id: Number, services: ServicesDep) -> schemas.Reindex:
    """A reindex: how far it is, what failed, and what is still to be built."""
    with services.database.transaction() as session:
        row = reindexes.get(session, reindex_id)
        jobs, failed = reindexes.job_counts(session, reindex_id), reindexes.failures(session, reindex_id)
    left = readiness.parts_left(services.database, reindex_id, settings().index_exact_bytes)
    return schemas.Reindex.of(row, jobs, failed, left)


@router.get("/reindexes/{reindex_id}/drift", dependencies=[no_query], responses=problems(ReindexNotFound, *FOR_ADMINS))
def drift(reindex_id: Number, services: ServicesDep) -> schemas.DriftReport:
    """How neighbours change, and what would be lost: of what is measured so far, or as it was when all was."""
    return schemas.DriftReport.of(*readiness.drift_report(services.database, reindex_id))


@router.post(
    "/reindexes/{reindex_id}/switch",
    dependencies=[no_query],
    responses=problems(
        ReindexNotFound, ReindexOver, ReindexNotReady, ReindexIncomplete, BodyTooLarge, *FOR_ADMINS
    ),
)  # fmt: skip
def switch(reindex_id: Number, request: schemas.Force, services: ServicesDep) -> schemas.Reindex:
    """Have the new spaces answer in place of the old ones, which are kept."""
    exact_bytes = settings().index_exact_bytes
    return schemas.Reindex.of(
        cutover.switch(services.database, reindex_id, force=request.force, exact_bytes=exact_bytes)
    )


@router.post(
    "/reindexes/{reindex_id}/rollback",
    dependencies=[no_query],
    responses=problems(ReindexNotFound, ReindexOver, ReindexIncomplete, BodyTooLarge, *FOR_ADMINS),
)
def roll_back(reindex_id: Number, request: schemas.Force, services: ServicesDep) -> schemas.Reindex:
    """After the switch have the old spaces answer again; before it throw away what was measured."""
    return schemas.Reindex.of(cutover.roll_back(services.database, reindex_id, force=request.force))


@router.post(
    "/reindexes/{reindex_id}/cancel",
    dependencies=[no_query],
    responses=problems(ReindexNotFound, ReindexOver, *FOR_ADMINS),
)
def cancel(reindex_id: Number, services: ServicesDep) -> schemas.Reindex:
    """End it before its switch: its jobs end, and what was measured is thrown away."""
    return schemas.Reindex.of(cutover.cancel(services.database, reindex_id))
