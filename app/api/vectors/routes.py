"""Routes: vectors under names."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, status

from app.api import pagination
from app.api.auth.viewer import ViewerDep
from app.api.limits import no_query
from app.api.problems import OF_AN_EXPRESSION, problems
from app.api.schemas import PageQuery
from app.api.services.services import ServicesDep
from app.api.vectors import schemas
from catalog.arithmetic import service as arithmetic_service
from catalog.errors import (
    BodyTooLarge,
    InvalidCursor,
    InvalidName,
    InvalidVector,
    NameTaken,
    NoShift,
    NotIndexed,
    SpaceMismatch,
    SpaceNotFound,
    SpaceRequired,
    TooManyVectors,
    VectorNotFound,
    WeakKey,
)

router = APIRouter(prefix="/v1/vectors", tags=["vectors"])
Name = Annotated[str, Path(max_length=200)]


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    dependencies=[no_query],
    responses=problems(
        InvalidName, NameTaken, TooManyVectors, InvalidVector, *OF_AN_EXPRESSION, NotIndexed,
        NoShift, SpaceNotFound, SpaceMismatch, SpaceRequired,
        BodyTooLarge, WeakKey,
    ),
)  # fmt: skip
def store(new: schemas.NewVector, services: ServicesDep, viewer: ViewerDep) -> schemas.StoredVector:
    """Give a name to a vector of yours, or to what an expression comes to now. With an API key it is shown to that key
    alone.
    """
    saved = arithmetic_service.save(
        services.database,
        new.name,
        new.expression if new.expression is not None else new.vector or [],
        space_key=new.space,
        unit_terms=new.unit_terms,
        note=new.note,
        viewer=viewer,
    )
    return schemas.StoredVector.of(*saved)


@router.get("", responses=problems(InvalidCursor, WeakKey))
def page(query: Annotated[PageQuery, Query()], services: ServicesDep, viewer: ViewerDep) -> schemas.StoredVectors:
    """The stored vectors without their numbers, the oldest first."""
    after = pagination.decode(query.cursor)
    found = arithmetic_service.page(services.database, after=after, limit=query.limit, viewer=viewer)
    more = pagination.next_cursor(found, query.limit, lambda row: row[0].id)
    return schemas.StoredVectors(vectors=[schemas.StoredVector.of(*each) for each in found], next_cursor=more)


@router.get("/{name}", dependencies=[no_query], responses=problems(VectorNotFound, WeakKey))
def get(name: Name, services: ServicesDep, viewer: ViewerDep) -> schemas.StoredNumbers:
    """A stored vector."""
    return schemas.StoredNumbers.of(*arithmetic_service.get(services.database, name, viewer))


@router.delete("/{name}", dependencies=[no_query], responses=problems(VectorNotFound, WeakKey))
def delete(name: Name, services: ServicesDep, viewer: ViewerDep) -> schemas.StoredVector:
    """Forget a stored vector; the answer is what it was. What was computed from it stays."""
    return schemas.StoredVector.of(*arithmetic_service.delete(services.database, name, viewer))
