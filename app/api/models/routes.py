"""Routes: models, and what is near them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response, status
from fastapi.concurrency import run_in_threadpool

from app.api import pagination
from app.api import schemas as shared_schemas
from app.api.auth.submitter import QuotaDep, TokenDep
from app.api.auth.viewer import ViewerDep
from app.api.jobs import schemas as job_schemas
from app.api.limits import no_query
from app.api.models import revision_schemas, schemas
from app.api.problems import problems
from app.api.schemas import ModelName, OwnerName
from app.api.search.schemas import Neighbors, NeighborsQuery
from app.api.services.services import ServicesDep
from catalog.errors import (
    BodyTooLarge,
    GeometryNotFitted,
    IndexNotLoaded,
    InvalidCursor,
    InvalidRepoId,
    InvalidRevision,
    KeyRequired,
    ModelNotFound,
    NoShift,
    NotIndexed,
    SpaceNotFound,
    TokenMalformed,
    TokensOff,
    TooManyJobs,
    WeakKey,
)
from catalog.jobs import submissions
from catalog.models import history
from catalog.models import service as model_service
from catalog.models.repo_ref import RepoRef
from catalog.search import service as search_service
from catalog.vectors import service as vector_service

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[no_query],
    responses={
        **problems(
            InvalidRepoId, InvalidRevision, BodyTooLarge, TooManyJobs, KeyRequired, TokenMalformed, TokensOff, WeakKey
        ),
        200: {
            "model": job_schemas.Job,
            "description": "That commit is indexed already, or the model is quarantined: the job that says so.",
        },
    },
)
async def submit(
    submission: schemas.Submission, services: ServicesDep, quota: QuotaDep, token: TokenDep, response: Response
) -> job_schemas.Job:
    """Ask for a repo of the Hub to be embedded. While its job is active, asking again gives the same job.

    With a token of the Hub, what only that token may read is shown to the key that came with it alone.
    """
    ref = RepoRef(submission.repo_id, submission.revision)
    # of a route that is no coroutine the answer is made in a thread as well: one hand-over more, a tenth of the request
    job = await run_in_threadpool(submissions.submit_repo, services.database, ref, quota, token)
    if submissions.is_over(job):
        response.status_code = status.HTTP_200_OK
    return job_schemas.Job.of(job)


@router.get("", responses=problems(InvalidCursor, WeakKey))
def page(query: Annotated[schemas.ModelsQuery, Query()], services: ServicesDep, viewer: ViewerDep) -> schemas.Models:
    """Models in the order in which they were first submitted; with `q`, those whose text has the words, ranked."""
    after = pagination.decode_scored(query.cursor) if query.q is not None else pagination.decode(query.cursor)
    found = model_service.page(services.database, query.filters(), after=after, limit=query.limit, viewer=viewer)
    more = pagination.next_cursor(found, query.limit, lambda listed: listed.position)
    return schemas.Models(models=[schemas.Model.of(listed.model) for listed in found], next_cursor=more)


@router.get("/{owner}/{name}", dependencies=[no_query], responses=problems(ModelNotFound, InvalidRepoId, WeakKey))
def get(owner: OwnerName, name: ModelName, services: ServicesDep, viewer: ViewerDep) -> schemas.ModelDetail:
    """A model, its current revision, its base and how that was found, and what is known of it in each space."""
    repo_id = RepoRef(f"{owner}/{name}").repo_id
    return schemas.ModelDetail.with_embeddings(*vector_service.measured(services.database, repo_id, viewer))


@router.get("/{owner}/{name}/revisions", responses=problems(ModelNotFound, InvalidRepoId, InvalidCursor, WeakKey))
def revisions(
    owner: OwnerName,
    name: ModelName,
    query: Annotated[shared_schemas.PageQuery, Query()],
    services: ServicesDep,
    viewer: ViewerDep,
) -> revision_schemas.Revisions:
    """A model's history, the newest first: what was embedded, and how far it moved from one to the next."""
    repo_id = RepoRef(f"{owner}/{name}").repo_id
    before = pagination.decode(query.cursor)
    model, found = history.of_model(services.database, repo_id, before=before, limit=query.limit, viewer=viewer)
    more = pagination.next_cursor(found, query.limit, lambda past: past.revision.id)
    return revision_schemas.Revisions.of(model, found, more)


@router.get(
    "/{owner}/{name}/neighbors",
    responses=problems(
        ModelNotFound, InvalidRepoId, NotIndexed, NoShift, SpaceNotFound, GeometryNotFitted, IndexNotLoaded, WeakKey
    ),
)
def neighbors(
    owner: OwnerName,
    name: ModelName,
    query: Annotated[NeighborsQuery, Query()],
    services: ServicesDep,
    viewer: ViewerDep,
) -> Neighbors:
    """The models nearest to an indexed one by cosine, itself left out."""
    answer = search_service.by_model(
        services.database,
        services.index,
        RepoRef(f"{owner}/{name}").repo_id,
        query.options(viewer, exclude_own_owner=query.exclude_own_owner),
    )
    return Neighbors.of(answer)
