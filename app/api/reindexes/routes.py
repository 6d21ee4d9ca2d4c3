"""Routes of reindexes, for admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, status

from app.api import pagination
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
    ReindexFinished,
    ReindexIncomplete,
    ReindexNotFound,
    ReindexNotReady,
    SpaceNotFound,
)
from catalog.reindexes import cutover, readiness
from catalog.reindexes import service as reindex_service

router = APIRouter(
    prefix="/v1/admin/reindexes",
    tags=["admin"],
)


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[no_query],
    responses=problems(SpaceNotFound, InvalidRepoId, ReindexActive, BodyTooLarge),
)
def create_reindex(request: schemas.ReindexRequest, services: ServicesDep) -> schemas.Reindex:
    """Measure models again, into new spaces beside the serving ones. One reindex may be active at a time."""
    return schemas.Reindex.from_row(reindex_service.create(services.database, request.selection()))


@router.get("", responses=problems(InvalidCursor))
def list_reindexes(query: Annotated[PageQuery, Query()], services: ServicesDep) -> schemas.Reindexes:
    """List all reindexes, newest first."""
    rows = reindex_service.list_page(services.database, before=pagination.decode(query.cursor), limit=query.limit)
    next_cursor = pagination.next_cursor(rows, query.limit, lambda row: row.id)
    return schemas.Reindexes(reindexes=[schemas.Reindex.from_row(row) for row in rows], next_cursor=next_cursor)


@router.get("/{reindex_id}", dependencies=[no_query], responses=problems(ReindexNotFound))
def get_reindex(reindex_id: Id, services: ServicesDep, settings: SettingsDep) -> schemas.Reindex:
    """Get a reindex with its progress: its jobs by state, its failures, and its missing artifacts."""
    progress = readiness.get_progress(services.database, reindex_id, settings.index_exact_bytes)
    return schemas.Reindex.with_progress(progress)


@router.get("/{reindex_id}/drift", dependencies=[no_query], responses=problems(ReindexNotFound))
def get_drift(reindex_id: Id, services: ServicesDep) -> schemas.DriftReport:
    """Report how neighbors change and which models would be lost. Until the reindex is ready, the report covers the
    models that have been measured so far.
    """
    final, spaces = readiness.get_drift_report(services.database, reindex_id)
    return schemas.DriftReport.from_report(final, spaces)


@router.post(
    "/{reindex_id}/cutover",
    dependencies=[no_query],
    responses=problems(
        ReindexNotFound, ReindexFinished, ReindexNotReady, ReindexIncomplete, BodyTooLarge
    ),
)  # fmt: skip
def cut_over_reindex(
    reindex_id: Id, request: schemas.Force, services: ServicesDep, settings: SettingsDep
) -> schemas.Reindex:
    """Make the new spaces serve in place of the old ones, which are kept."""
    exact_bytes = settings.index_exact_bytes
    row = cutover.cut_over(services.database, reindex_id, force=request.force, exact_bytes=exact_bytes)
    return schemas.Reindex.from_row(row)


@router.post(
    "/{reindex_id}/rollback",
    dependencies=[no_query],
    responses=problems(ReindexNotFound, ReindexFinished, ReindexIncomplete, BodyTooLarge),
)
def roll_back_reindex(reindex_id: Id, request: schemas.Force, services: ServicesDep) -> schemas.Reindex:
    """After the cutover, make the old spaces serve again. Before it, discard the new vectors."""
    return schemas.Reindex.from_row(cutover.roll_back(services.database, reindex_id, force=request.force))


@router.post(
    "/{reindex_id}/cancel",
    dependencies=[no_query],
    responses=problems(ReindexNotFound, ReindexFinished),
)
def cancel_reindex(reindex_id: Id, services: ServicesDep) -> schemas.Reindex:
    """Cancel a reindex before its cutover: its jobs are cancelled, and the new vectors are discarded."""
    return schemas.Reindex.from_row(cutover.cancel(services.database, reindex_id))
