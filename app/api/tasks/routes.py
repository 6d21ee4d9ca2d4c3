"""Routes of tasks by example."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, status
from fastapi.responses import StreamingResponse

from app.api import pagination, zip_response
from app.api.auth.caller import QuotaDep, ViewerDep
from app.api.limits import no_query
from app.api.problems import problems
from app.api.schemas import Id, PageQuery
from app.api.services.services import ServicesDep
from app.api.tasks import schemas
from catalog.errors import (
    ArchiveNotFound,
    ArchiveQuotaExceeded,
    BaseRequired,
    BodyTooLarge,
    IndexNotLoaded,
    InvalidCursor,
    InvalidExamples,
    InvalidRepoId,
    NameTaken,
    SearchBusy,
    SpaceNotFound,
    TaskNotFinished,
    TaskNotFound,
    TooManyJobs,
    TooManyResults,
)
from catalog.tasks import ranking as task_ranking
from catalog.tasks import service as task_service

router = APIRouter(prefix="/v1/tasks", tags=["tasks"])


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[no_query],
    responses=problems(
        InvalidExamples,
        InvalidRepoId,
        NameTaken,
        SpaceNotFound,
        BaseRequired,
        BodyTooLarge,
        TooManyJobs,
        TooManyResults,
        ArchiveQuotaExceeded,
    ),
)
def create_task(
    request: schemas.TaskRequest, services: ServicesDep, quota: QuotaDep, viewer: ViewerDep
) -> schemas.Task:
    """Find the models that fit a task, given by examples. A task that is created with an API key is visible only to
    that key.
    """
    return schemas.Task.from_row(*task_service.create(services.database, request.to_request(), quota, viewer), viewer)


@router.get("", responses=problems(InvalidCursor))
def list_tasks(query: Annotated[PageQuery, Query()], services: ServicesDep, viewer: ViewerDep) -> schemas.Tasks:
    """List tasks, newest first."""
    rows = task_service.list_page(services.database, viewer, before=pagination.decode(query.cursor), limit=query.limit)
    next_cursor = pagination.next_cursor(rows, query.limit, lambda row: row[0].id)
    return schemas.Tasks(tasks=[schemas.Task.from_row(*row, viewer) for row in rows], next_cursor=next_cursor)


@router.get("/{task_id}", dependencies=[no_query], responses=problems(TaskNotFound))
def get_task(task_id: Id, services: ServicesDep, viewer: ViewerDep) -> schemas.Task:
    """Get a task with the state of its jobs, and the scores of the models that it was verified with."""
    return schemas.Task.from_row(*task_service.get(services.database, task_id, viewer), viewer)


@router.delete("/{task_id}", dependencies=[no_query], responses=problems(TaskNotFound))
def delete_task(task_id: Id, services: ServicesDep, viewer: ViewerDep) -> schemas.Task:
    """Delete a task with its jobs, examples, vectors and selections, and return it."""
    return schemas.Task.from_row(*task_service.delete(services.database, task_id, viewer), viewer)


@router.get(
    "/{task_id}/adapter",
    response_class=StreamingResponse,
    responses=problems(TaskNotFound, TaskNotFinished, ArchiveNotFound) | zip_response.ZIP_RESPONSES,
)
def download_task_adapter(
    task_id: Id, query: Annotated[schemas.AdapterQuery, Query()], services: ServicesDep, viewer: ViewerDep
) -> StreamingResponse:
    """Download the adapter that was trained on all examples of a task, as a zip file, if the task has `keep_adapter`.
    PEFT loads the unpacked folder.
    """
    return zip_response.zip_response(task_service.get_adapter(services.database, task_id, query.base, viewer))


@router.get(
    "/{task_id}/neighbors",
    responses=problems(TaskNotFound, TaskNotFinished, IndexNotLoaded, SearchBusy),
)
def get_task_neighbors(
    task_id: Id, query: Annotated[schemas.TaskNeighborsQuery, Query()], services: ServicesDep, viewer: ViewerDep
) -> schemas.TaskNeighbors:
    """Find the models nearest to a task, with the uncertainty of each similarity, and whether the task is covered."""
    answers = task_ranking.rank_models(services.database, services.index, task_id, query.base, query.options(viewer))
    return schemas.TaskNeighbors(bases=[schemas.TaskNeighborsOnBase.from_answer(answer) for answer in answers])
