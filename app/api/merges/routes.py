"""Routes of merges."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, status
from fastapi.responses import StreamingResponse

from app.api import pagination, zip_response
from app.api.auth.caller import QuotaDep, ViewerDep
from app.api.limits import no_query
from app.api.merges import schemas
from app.api.problems import problems
from app.api.schemas import Id, PageQuery
from app.api.services.services import ServicesDep
from catalog.errors import (
    ArchiveNotFound,
    ArchiveQuotaExceeded,
    BodyTooLarge,
    IndexNotLoaded,
    InvalidCursor,
    InvalidRepoId,
    MergeIncompatible,
    MergeNotFinished,
    MergeNotFound,
    ModelNotFound,
    NameTaken,
    NotIndexed,
    SearchBusy,
    SpaceMismatch,
    TooManyJobs,
    TooManyResults,
    ZeroVector,
)
from catalog.merges import service as merge_service

router = APIRouter(prefix="/v1/merges", tags=["merges"])
PLAN_ERRORS = (InvalidRepoId, ModelNotFound, NotIndexed, MergeIncompatible, SpaceMismatch, ZeroVector, BodyTooLarge)


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[no_query],
    responses=problems(*PLAN_ERRORS, NameTaken, TooManyJobs, TooManyResults, ArchiveQuotaExceeded),
)
def create_merge(
    request: schemas.MergeRequest, services: ServicesDep, quota: QuotaDep, viewer: ViewerDep
) -> schemas.Merge:
    """Merge adapters into one. A merge that is created with an API key is visible only to that key."""
    return schemas.Merge.from_row(
        *merge_service.create(services.database, request.to_spec(), request.name, quota, viewer)
    )


@router.post(
    "/plan",
    dependencies=[no_query],
    responses=problems(*PLAN_ERRORS, IndexNotLoaded, SearchBusy),
)
def plan_merge(request: schemas.PlanRequest, services: ServicesDep, viewer: ViewerDep) -> schemas.MergePlan:
    """Plan a merge without running it: whether the parts can be merged, the prediction, its neighbors, and warnings."""
    preview = merge_service.preview(services.database, services.index, request.to_spec(), request.options(viewer))
    return schemas.MergePlan.from_preview(preview)


@router.get("", responses=problems(InvalidCursor))
def list_merges(query: Annotated[PageQuery, Query()], services: ServicesDep, viewer: ViewerDep) -> schemas.Merges:
    """List merges, newest first."""
    rows = merge_service.list_page(services.database, viewer, before=pagination.decode(query.cursor), limit=query.limit)
    next_cursor = pagination.next_cursor(rows, query.limit, lambda row: row[0].id)
    return schemas.Merges(merges=[schemas.Merge.from_row(*row, viewer) for row in rows], next_cursor=next_cursor)


@router.get("/{merge_id}", dependencies=[no_query], responses=problems(MergeNotFound))
def get_merge(merge_id: Id, services: ServicesDep, viewer: ViewerDep) -> schemas.Merge:
    """Get a merge with the state of its job, and the comparison of its measured vector with the prediction."""
    return schemas.Merge.from_row(*merge_service.get(services.database, merge_id, viewer), viewer)


@router.delete("/{merge_id}", dependencies=[no_query], responses=problems(MergeNotFound))
def delete_merge(merge_id: Id, services: ServicesDep, viewer: ViewerDep) -> schemas.Merge:
    """Delete a merge with its job and its adapter, and return it."""
    return schemas.Merge.from_row(*merge_service.delete(services.database, merge_id, viewer), viewer)


@router.get(
    "/{merge_id}/adapter",
    dependencies=[no_query],
    response_class=StreamingResponse,
    responses=problems(MergeNotFound, MergeNotFinished, ArchiveNotFound) | zip_response.ZIP_RESPONSES,
)
def download_merge_adapter(merge_id: Id, services: ServicesDep, viewer: ViewerDep) -> StreamingResponse:
    """Download the merged adapter as a zip file with weights, config, model card and a config for mergekit. PEFT loads
    the unpacked folder.
    """
    return zip_response.zip_response(merge_service.get_adapter(services.database, merge_id, viewer))


@router.get("/{merge_id}/neighbors", responses=problems(MergeNotFound, IndexNotLoaded, SearchBusy))
def get_merge_neighbors(
    merge_id: Id, query: Annotated[schemas.MergeNeighborsQuery, Query()], services: ServicesDep, viewer: ViewerDep
) -> schemas.MergeNeighbors:
    """Find the models nearest to the prediction of a merge, and to its measured vector."""
    return schemas.MergeNeighbors.from_answers(
        merge_service.get_neighbors(services.database, services.index, merge_id, query.options(viewer))
    )
