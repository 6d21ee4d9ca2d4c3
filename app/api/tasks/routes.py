"""Routes: tasks by example."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, status
from fastapi.responses import StreamingResponse

from app.api import pagination, zip_response
from app.api.auth.submitter import QuotaDep
from app.api.auth.viewer import ViewerDep
from app.api.limits import no_query
from app.api.problems import problems
from app.api.schemas import Id, PageQuery
from app.api.services.services import ServicesDep
from app.api.tasks import schemas
from catalog.errors import (
    ArchiveNotFound,
    BodyTooLarge,
    GeometryNotFitted,
    IndexNotLoaded,
    InvalidCursor,
    InvalidExamples,
    InvalidRepoId,
    NameTaken,
    SpaceNotFound,
    TaskNotDone,
    TaskNotFound,
    TooManyJobs,
    WeakKey,
)
from catalog.tasks import ranking as task_ranking
from catalog.tasks import service as task_service

router = APIRouter(prefix="/v1/tasks", tags=["tasks"])


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[no_query],
    responses=problems(InvalidExamples, InvalidRepoId, NameTaken, SpaceNotFound, BodyTooLarge, TooManyJobs, WeakKey),
)
def ask(request: schemas.TaskRequest, services: ServicesDep, quota: QuotaDep, viewer: ViewerDep) -> schemas.Task:
    """Ask which models fit some examples. What is asked with an API key is shown to that key alone."""
    return schemas.Task.of(*task_service.ask(services.database, request.question(), quota, viewer))


@router.get("", responses=problems(InvalidCursor, WeakKey))
def page(query: Annotated[PageQuery, Query()], services: ServicesDep, viewer: ViewerDep) -> schemas.Tasks:
    """Tasks, the newest first."""
    found = task_service.page(services.database, viewer, before=pagination.decode(query.cursor), limit=query.limit)
    more = pagination.next_cursor(found, query.limit, lambda row: row[0].id)
    return schemas.Tasks(tasks=[schemas.Task.of(*each) for each in found], next_cursor=more)


@router.get("/{task_id}", dependencies=[no_query], responses=problems(TaskNotFound, WeakKey))
def get(task_id: Id, services: ServicesDep, viewer: ViewerDep) -> schemas.Task:
    """A task: how far its jobs are, and what its models scored."""
    return schemas.Task.of(*task_service.get(services.database, task_id, viewer))


@router.delete("/{task_id}", dependencies=[no_query], responses=problems(TaskNotFound, WeakKey))
def delete(task_id: Id, services: ServicesDep, viewer: ViewerDep) -> schemas.Task:
    """Forget a task, its jobs, its examples and its vectors; the answer is what it was."""
    return schemas.Task.of(*task_service.delete(services.database, task_id, viewer))


@router.get(
    "/{task_id}/adapter",
    response_class=StreamingResponse,
    responses=problems(TaskNotFound, TaskNotDone, ArchiveNotFound, WeakKey) | zip_response.RESPONSE,
)
def adapter(
    task_id: Id, query: Annotated[schemas.AdapterQuery, Query()], services: ServicesDep, viewer: ViewerDep
) -> StreamingResponse:
    """The adapter that was trained on all examples of a task, where it is kept: a zip file that PEFT loads unpacked."""
    return zip_response.answer(task_service.adapter(services.database, task_id, query.base, viewer))


@router.get(
    "/{task_id}/neighbors",
    responses=problems(TaskNotFound, TaskNotDone, GeometryNotFitted, IndexNotLoaded, WeakKey),
)
def neighbors(
    task_id: Id, query: Annotated[schemas.TaskNeighborsQuery, Query()], services: ServicesDep, viewer: ViewerDep
) -> schemas.TaskNeighbors:
    """The models nearest to a task, each with how certain that is, and whether anything here is like it at all."""
    found = task_ranking.rank(services.database, services.index, task_id, query.base, query.options(viewer))
    return schemas.TaskNeighbors(bases=[schemas.TaskNeighborsOnBase.of(each) for each in found])
