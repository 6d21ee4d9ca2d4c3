"""Routes: merges of adapters."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, status
from fastapi.responses import StreamingResponse

from app.api import pagination, zip_response
from app.api.auth.submitter import QuotaDep
from app.api.auth.viewer import ViewerDep
from app.api.limits import no_query
from app.api.merges import schemas
from app.api.problems import problems
from app.api.schemas import Id, PageQuery
from app.api.services.services import ServicesDep
from catalog.errors import (
    ArchiveNotFound,
    BodyTooLarge,
    GeometryNotFitted,
    IndexNotLoaded,
    InvalidCursor,
    InvalidRepoId,
    MergeIncompatible,
    MergeNotDone,
    MergeNotFound,
    ModelNotFound,
    NameTaken,
    NothingLeft,
    NotIndexed,
    SpaceMismatch,
    TooManyJobs,
    WeakKey,
)
from catalog.merges import service as merge_service

router = APIRouter(prefix="/v1/merges", tags=["merges"])
PLANNED = (InvalidRepoId, ModelNotFound, NotIndexed, MergeIncompatible, SpaceMismatch, NothingLeft, BodyTooLarge)


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[no_query],
    responses=problems(*PLANNED, NameTaken, TooManyJobs, WeakKey),
)
def ask(request: schemas.MergeRequest, services: ServicesDep, quota: QuotaDep, viewer: ViewerDep) -> schemas.Merge:
    """Have adapters made one. What is asked with an API key is shown to that key alone."""
    return schemas.Merge.of(*merge_service.ask(services.database, request.blend(), request.name, quota, viewer))


@router.post(
    "/plan",
    dependencies=[no_query],
    responses=problems(*PLANNED, GeometryNotFitted, IndexNotLoaded, WeakKey),
)
def plan(request: schemas.PlanRequest, services: ServicesDep, viewer: ViewerDep) -> schemas.MergePlan:
    """What a merge would be: whether the parts fit, what is predicted of it, and what to look out for."""
    found = merge_service.plan(services.database, services.index, request.blend(), request.options(viewer))
    return schemas.MergePlan.of(found)


@router.get("", responses=problems(InvalidCursor, WeakKey))
def page(query: Annotated[PageQuery, Query()], services: ServicesDep, viewer: ViewerDep) -> schemas.Merges:
    """Merges, the newest first."""
    found = merge_service.page(services.database, viewer, before=pagination.decode(query.cursor), limit=query.limit)
    more = pagination.next_cursor(found, query.limit, lambda row: row[0].id)
    return schemas.Merges(merges=[schemas.Merge.of(*each) for each in found], next_cursor=more)


@router.get("/{merge_id}", dependencies=[no_query], responses=problems(MergeNotFound, WeakKey))
def get(merge_id: Id, services: ServicesDep, viewer: ViewerDep) -> schemas.Merge:
    """A merge: how far its job is, and what came out beside what was predicted."""
    return schemas.Merge.of(*merge_service.get(services.database, merge_id, viewer))


@router.delete("/{merge_id}", dependencies=[no_query], responses=problems(MergeNotFound, WeakKey))
def delete(merge_id: Id, services: ServicesDep, viewer: ViewerDep) -> schemas.Merge:
    """Forget a merge, its job and its adapter; the answer is what it was."""
    return schemas.Merge.of(*merge_service.delete(services.database, merge_id, viewer))


@router.get(
    "/{merge_id}/adapter",
    dependencies=[no_query],
    response_class=StreamingResponse,
    responses=problems(MergeNotFound, MergeNotDone, ArchiveNotFound, WeakKey) | zip_response.RESPONSE,
)
def adapter(merge_id: Id, services: ServicesDep, viewer: ViewerDep) -> StreamingResponse:
    """What was made, its card and a recipe for mergekit: a zip file that PEFT loads unpacked."""
    return zip_response.answer(merge_service.adapter(services.database, merge_id, viewer))


@router.get("/{merge_id}/neighbors", responses=problems(MergeNotFound, GeometryNotFitted, IndexNotLoaded, WeakKey))
def neighbors(
    merge_id: Id, query: Annotated[schemas.NearFields, Query()], services: ServicesDep, viewer: ViewerDep
) -> schemas.MergeNeighbors:
    """The models nearest to what was predicted, and to what came out."""
    return schemas.MergeNeighbors.of(
        merge_service.near(services.database, services.index, merge_id, query.options(viewer))
    )
