"""Routes: sets of modules for a task."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, status

from app.api import pagination
from app.api.auth.submitter import QuotaDep
from app.api.auth.viewer import ViewerDep
from app.api.limits import no_query
from app.api.problems import problems
from app.api.schemas import Id, PageQuery
from app.api.selections import schemas
from app.api.services.services import ServicesDep
from catalog.errors import (
    BodyTooLarge,
    ExamplesNotKept,
    InvalidCursor,
    SelectionNotFound,
    TaskNotDone,
    TaskNotFound,
    TooManyJobs,
    WeakKey,
)
from catalog.selections import service as selection_service

router = APIRouter(prefix="/v1/selections", tags=["selections"])


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[no_query],
    responses=problems(TaskNotFound, TaskNotDone, ExamplesNotKept, BodyTooLarge, TooManyJobs, WeakKey),
)
def ask(
    request: schemas.SelectionRequest, services: ServicesDep, quota: QuotaDep, viewer: ViewerDep
) -> schemas.Selection:
    """Try sets of modules for a task, chosen in several ways, and compare them. Shown to whom the task is, or to the
    API key that asks.
    """
    return schemas.Selection.of(*selection_service.ask(services.database, request.wish(), quota, viewer))


@router.get("", responses=problems(InvalidCursor, WeakKey))
def page(query: Annotated[PageQuery, Query()], services: ServicesDep, viewer: ViewerDep) -> schemas.Selections:
    """Selections, the newest first."""
    found = selection_service.page(services.database, viewer, before=pagination.decode(query.cursor), limit=query.limit)
    more = pagination.next_cursor(found, query.limit, lambda row: row[0].id)
    return schemas.Selections(selections=[schemas.Selection.of(*each) for each in found], next_cursor=more)


@router.get("/{selection_id}", dependencies=[no_query], responses=problems(SelectionNotFound, WeakKey))
def get(selection_id: Id, services: ServicesDep, viewer: ViewerDep) -> schemas.Selection:
    """A selection: how far its job is, and how its arms compare."""
    return schemas.Selection.of(*selection_service.get(services.database, selection_id, viewer))


@router.delete("/{selection_id}", dependencies=[no_query], responses=problems(SelectionNotFound, WeakKey))
def delete(selection_id: Id, services: ServicesDep, viewer: ViewerDep) -> schemas.Selection:
    """Forget a selection and its job; the answer is what it was."""
    return schemas.Selection.of(*selection_service.delete(services.database, selection_id, viewer))
