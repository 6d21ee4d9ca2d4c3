"""Routes of searches, and the list of spaces."""

from __future__ import annotations

from fastapi import APIRouter

from app.api import schemas
from app.api.auth.caller import ViewerDep
from app.api.limits import VectorRoute, no_query
from app.api.problems import EXPRESSION_ERRORS, problems
from app.api.search.expression_schemas import ExpressionNeighbors
from app.api.search.schemas import BatchAnswer, BatchAnswers, BatchQuery, Neighbors, SearchQuery
from app.api.services.services import ServicesDep
from catalog.arithmetic import service as arithmetic_service
from catalog.errors import (
    BodyTooLarge,
    IndexNotLoaded,
    InvalidRepoId,
    InvalidVector,
    ModelNotFound,
    NoShift,
    NotIndexed,
    SearchBusy,
    SpaceMismatch,
    SpaceNotFound,
    SpaceRequired,
)
from catalog.models.repo_ref import RepoRef
from catalog.search import service as search_service
from catalog.spaces import service as space_service

router = APIRouter(prefix="/v1", tags=["search"], route_class=VectorRoute)


@router.post(
    "/search",
    dependencies=[no_query],
    responses=problems(
        ModelNotFound, SpaceNotFound, NotIndexed, NoShift, SpaceRequired, SpaceMismatch, InvalidRepoId, InvalidVector,
        *EXPRESSION_ERRORS, IndexNotLoaded, SearchBusy, BodyTooLarge,
    ),
)  # fmt: skip
def search(query: SearchQuery, services: ServicesDep, viewer: ViewerDep) -> ExpressionNeighbors | Neighbors:
    """Find the models nearest to a vector, to an indexed model, or to a sum of named vectors."""
    options = query.options(viewer, exclude_own_owner=query.exclude_own_owner)
    answer = arithmetic_service.search(services.database, services.index, query.query(), options)
    if isinstance(answer, arithmetic_service.ExpressionAnswer):
        return ExpressionNeighbors.from_expression_answer(answer)
    return Neighbors.from_answer(answer)


@router.post(
    "/search/batch",
    dependencies=[no_query],
    responses=problems(SpaceNotFound, InvalidRepoId, IndexNotLoaded, SearchBusy, BodyTooLarge),
)
def search_batch(query: BatchQuery, services: ServicesDep, viewer: ViewerDep) -> BatchAnswers:
    """Find the models nearest to each of several indexed models. An error for one of them does not stop the others."""
    repo_ids = [RepoRef(repo_id).repo_id for repo_id in query.repo_ids]
    options = query.options(viewer, exclude_own_owner=query.exclude_own_owner)
    answers = search_service.by_models(services.database, services.index, repo_ids, options)
    return BatchAnswers(
        answers=[BatchAnswer.from_answer(repo_id, answer) for repo_id, answer in zip(repo_ids, answers, strict=True)]
    )


@router.get("/spaces", dependencies=[no_query], responses=problems())
def list_spaces(services: ServicesDep, viewer: ViewerDep) -> schemas.Spaces:
    """List the spaces that have vectors, newest first."""
    return schemas.Spaces(
        spaces=[schemas.Space.from_row(space) for space in space_service.list_spaces(services.database, viewer)]
    )
