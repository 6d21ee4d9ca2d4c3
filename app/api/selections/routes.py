"""Routes of selections of adapters for a task."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, status

from app.api import pagination
from app.api.auth.caller import QuotaDep, ViewerDep
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
    TaskNotFinished,
    TaskNotFound,
    TooManyJobs,
    TooManyResults,
)
from catalog.selections import service as selection_service

router = APIRouter(prefix="/v1/selections", tags=["selections"])


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[no_query],
    responses=problems(TaskNotFound, TaskNotFinished, ExamplesNotKept, BodyTooLarge, TooManyJobs, TooManyResults),
)
def create_selection(
    request: schemas.SelectionRequest, services: ServicesDep, quota: QuotaDep, viewer: ViewerDep
) -> schemas.Selection:
    """Select adapters for a task, compose them, and measure the result. The selection belongs to the API key of the
    task, or else to that of the request.
    """
    return schemas.Selection.from_row(
        *selection_service.create(services.database, request.to_request(), quota, viewer), viewer
    )


@router.get("", responses=problems(InvalidCursor))
def list_selections(
    query: Annotated[PageQuery, Query()], services: ServicesDep, viewer: ViewerDep
) -> schemas.Selections:
    """List selections, newest first."""
    rows = selection_service.list_page(
        services.database, viewer, before=pagination.decode(query.cursor), limit=query.limit
    )
    next_cursor = pagination.next_cursor(rows, query.limit, lambda row: row[0].id)
    return schemas.Selections(
        selections=[schemas.Selection.from_row(*row, viewer) for row in rows], next_cursor=next_cursor
    )


@router.get("/{selection_id}", dependencies=[no_query], responses=problems(SelectionNotFound))
def get_selection(selection_id: Id, services: ServicesDep, viewer: ViewerDep) -> schemas.Selection:
    """Get a selection with the state of its job and its result."""
    return schemas.Selection.from_row(*selection_service.get(services.database, selection_id, viewer), viewer)


@router.delete("/{selection_id}", dependencies=[no_query], responses=problems(SelectionNotFound))
def delete_selection(selection_id: Id, services: ServicesDep, viewer: ViewerDep) -> schemas.Selection:
    """Delete a selection with its job, and return it."""
    return schemas.Selection.from_row(*selection_service.delete(services.database, selection_id, viewer), viewer)
