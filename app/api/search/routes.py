"""Routes: search, and the spaces that it happens in."""

from __future__ import annotations

from fastapi import APIRouter

from app.api import schemas
from app.api.auth.viewer import ViewerDep
from app.api.limits import no_query
from app.api.problems import OF_AN_EXPRESSION, problems
from app.api.search.expression_schemas import Composed
from app.api.search.schemas import BatchAnswer, BatchAnswers, BatchQuery, Neighbors, SearchQuery
from app.api.services.services import ServicesDep
from catalog.arithmetic import service as arithmetic_service
from catalog.errors import (
    BodyTooLarge,
    GeometryNotFitted,
    IndexNotLoaded,
    InvalidRepoId,
    InvalidVector,
    ModelNotFound,
    NoShift,
    NotIndexed,
    SpaceMismatch,
    SpaceNotFound,
    SpaceRequired,
    WeakKey,
)
from catalog.models.repo_ref import RepoRef
from catalog.search import service as search_service
from catalog.spaces import service as space_service

router = APIRouter(prefix="/v1", tags=["search"])


@router.post(
    "/search",
    dependencies=[no_query],
    responses=problems(
        ModelNotFound, SpaceNotFound, NotIndexed, NoShift, SpaceRequired, SpaceMismatch, InvalidRepoId, InvalidVector,
        *OF_AN_EXPRESSION, GeometryNotFitted, IndexNotLoaded, BodyTooLarge, WeakKey,
    ),
)  # fmt: skip
def find(query: SearchQuery, services: ServicesDep, viewer: ViewerDep) -> Composed | Neighbors:
    """The models nearest to a vector of yours, to an indexed model, or to a sum of named vectors."""
    options = query.options(viewer, exclude_own_owner=query.exclude_own_owner)
    found = arithmetic_service.search(services.database, services.index, query.query(), options)
    return Composed.of_sum(found) if isinstance(found, arithmetic_service.Composed) else Neighbors.of(found)


@router.post(
    "/search/batch",
    dependencies=[no_query],
    responses=problems(SpaceNotFound, InvalidRepoId, GeometryNotFitted, IndexNotLoaded, BodyTooLarge, WeakKey),
)
def find_each(query: BatchQuery, services: ServicesDep, viewer: ViewerDep) -> BatchAnswers:
    """The models nearest to each of several indexed ones. One that cannot be answered does not keep the others back."""
    repo_ids = [RepoRef(repo_id).repo_id for repo_id in query.repo_ids]
    options = query.options(viewer, exclude_own_owner=query.exclude_own_owner)
    answers = search_service.by_models(services.database, services.index, repo_ids, options)
    return BatchAnswers(answers=[BatchAnswer.of(*each) for each in zip(repo_ids, answers, strict=True)])


@router.get("/spaces", dependencies=[no_query], responses=problems(WeakKey))
def page(services: ServicesDep, viewer: ViewerDep) -> schemas.Spaces:
    """The spaces that hold vectors, the newest first."""
    return schemas.Spaces(spaces=[schemas.Space.of(space) for space in space_service.page(services.database, viewer)])
