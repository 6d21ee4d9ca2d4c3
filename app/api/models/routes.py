"""Routes of models, their revisions and their neighbors."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response, status
from fastapi.concurrency import run_in_threadpool

from app.api import pagination
from app.api import schemas as shared_schemas
from app.api.auth.caller import QuotaDep, TokenDep, ViewerDep
from app.api.jobs import schemas as job_schemas
from app.api.limits import no_query
from app.api.models import revision_schemas, schemas
from app.api.problems import problems
from app.api.schemas import ModelName, OwnerName
from app.api.search.schemas import Neighbors, NeighborsQuery
from app.api.services.services import ServicesDep
from catalog.errors import (
    BodyTooLarge,
    HubTokensDisabled,
    IndexNotLoaded,
    InvalidCursor,
    InvalidHubToken,
    InvalidRepoId,
    InvalidRevision,
    ModelBlocked,
    ModelNotFound,
    NoShift,
    NotIndexed,
    SearchBusy,
    SpaceNotFound,
    TooManyJobs,
)
from catalog.jobs import submissions
from catalog.models import history
from catalog.models import service as model_service
from catalog.models.repo_ref import RepoRef
from catalog.removals import service as removal_service
from catalog.search import service as search_service
from catalog.vectors import service as vector_service

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[no_query],
    responses={
        **problems(
            InvalidRepoId,
            InvalidRevision,
            BodyTooLarge,
            TooManyJobs,
            InvalidHubToken,
            HubTokensDisabled,
            ModelBlocked,
        ),
        200: {
            "model": job_schemas.Job,
            "description": "No new job: the commit is already indexed, or the model is quarantined. Returns that job.",
        },
    },
)
async def submit_model(
    submission: schemas.Submission, services: ServicesDep, quota: QuotaDep, token: TokenDep, response: Response
) -> job_schemas.Job:
    """Submit a repo of the Hub. While its job is active, further submissions return the same job.

    If its files name no base model that can be found, name one in `base`; it is used if its tensors fit. A commit that
    was measured on another base is measured again.

    Only the newest commit of the main branch becomes the current revision of a public model; another `revision` is
    stored as its history.

    A repo that is fetched with a Hub token and is not public is visible only to the API keys with access to it.
    """
    ref = RepoRef(submission.repo_id, submission.revision)
    # a sync route would also serialize its response in a thread; the extra switch costs a tenth of a request's time
    job = await run_in_threadpool(submissions.submit_repo, services.database, ref, quota, token, submission.base)
    if submissions.is_finished(job):
        response.status_code = status.HTTP_200_OK
    return job_schemas.Job.from_row(job)


@router.get("", responses=problems(InvalidCursor))
def list_models(
    query: Annotated[schemas.ModelsQuery, Query()], services: ServicesDep, viewer: ViewerDep
) -> schemas.Models:
    """List models, oldest first. With `q`, search names, tags and cards, best match first."""
    after = pagination.decode_scored(query.cursor) if query.q is not None else pagination.decode(query.cursor)
    page = model_service.list_page(services.database, query.filters(), after=after, limit=query.limit, viewer=viewer)
    next_cursor = pagination.next_cursor(page, query.limit, lambda listed: listed.position)
    return schemas.Models(models=[schemas.Model.from_curated(listed) for listed in page], next_cursor=next_cursor)


@router.get("/{owner}/{name}", dependencies=[no_query], responses=problems(ModelNotFound, InvalidRepoId))
def get_model(owner: OwnerName, name: ModelName, services: ServicesDep, viewer: ViewerDep) -> schemas.ModelDetail:
    """Get a model: its metadata, current revision, base, and its measurement in each space."""
    repo_id = RepoRef(f"{owner}/{name}").repo_id
    return schemas.ModelDetail.with_measurements(*vector_service.list_measurements(services.database, repo_id, viewer))


@router.delete(
    "/{owner}/{name}",
    tags=["admin"],
    dependencies=[no_query],
    responses=problems(ModelNotFound, InvalidRepoId),
)
def remove_model(owner: OwnerName, name: ModelName, services: ServicesDep) -> schemas.Removal:
    """Remove a model with its revisions and vectors, its metadata and card, its former names and the access to it. Its
    jobs are cancelled. Only a person who submits it again brings it back, no crawl and no webhook.
    """
    removal = removal_service.remove(services.database, RepoRef(f"{owner}/{name}").repo_id)
    return schemas.Removal.model_validate(removal)


@router.get("/{owner}/{name}/revisions", responses=problems(ModelNotFound, InvalidRepoId, InvalidCursor))
def list_revisions(
    owner: OwnerName,
    name: ModelName,
    query: Annotated[shared_schemas.PageQuery, Query()],
    services: ServicesDep,
    viewer: ViewerDep,
) -> revision_schemas.Revisions:
    """List a model's measured revisions, newest first, each compared with the previous one that was current."""
    repo_id = RepoRef(f"{owner}/{name}").repo_id
    before = pagination.decode(query.cursor)
    model, page = history.list_revisions(services.database, repo_id, before=before, limit=query.limit, viewer=viewer)
    next_cursor = pagination.next_cursor(page, query.limit, lambda measured: measured.revision.id)
    return revision_schemas.Revisions.from_result(model, page, next_cursor)


@router.get(
    "/{owner}/{name}/neighbors",
    responses=problems(ModelNotFound, InvalidRepoId, NotIndexed, NoShift, SpaceNotFound, IndexNotLoaded, SearchBusy),
)
def get_model_neighbors(
    owner: OwnerName,
    name: ModelName,
    query: Annotated[NeighborsQuery, Query()],
    services: ServicesDep,
    viewer: ViewerDep,
) -> Neighbors:
    """Find the nearest neighbors of an indexed model by cosine, without the model itself."""
    answer = search_service.by_model(
        services.database,
        services.index,
        RepoRef(f"{owner}/{name}").repo_id,
        query.options(viewer, exclude_own_owner=query.exclude_own_owner),
    )
    return Neighbors.from_answer(answer)
