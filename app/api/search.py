"""Routes: search, and the spaces that it happens in."""

from __future__ import annotations

from fastapi import APIRouter

from app.api import schemas
from app.api.limits import no_query
from app.api.problems import problems
from app.api.services import ServicesDep
from catalog import search
from catalog.errors import (
    BodyTooLarge,
    IndexNotLoaded,
    InvalidRepoId,
    InvalidVector,
    ModelNotFound,
    NoShift,
    NotIndexed,
    SpaceMismatch,
    SpaceNotFound,
    SpaceRequired,
)
from catalog.refs import RepoRef
from catalog.repository import spaces

router = APIRouter(prefix="/v1", tags=["search"])


@router.post(
    "/search",
    dependencies=[no_query],
    responses=problems(
        ModelNotFound, SpaceNotFound, NotIndexed, NoShift, SpaceRequired, SpaceMismatch, InvalidRepoId, InvalidVector,
        IndexNotLoaded, BodyTooLarge,
    ),
)  # fmt: skip
def find(query: schemas.SearchQuery, services: ServicesDep) -> schemas.Neighbors:
    """The models nearest to a vector of yours, or to an indexed model."""
    options = search.Options(query.k, query.min_similarity, query.space)
    if query.vector is not None:
        return schemas.Neighbors.of(search.by_vector(services.database, services.index, query.vector, options))
    repo_id = RepoRef(query.repo_id or "").repo_id
    return schemas.Neighbors.of(search.by_model(services.database, services.index, repo_id, options))


@router.get("/spaces", dependencies=[no_query], responses=problems())
def page(services: ServicesDep) -> schemas.Spaces:
    """The spaces that vectors live in, the newest first."""
    with services.database.transaction() as session:
        return schemas.Spaces(spaces=[schemas.Space.of(space) for space in spaces.page(session)])
