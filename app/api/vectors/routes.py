"""Routes of stored vectors."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, status

from app.api import pagination
from app.api.auth.caller import ViewerDep
from app.api.limits import VectorRoute, no_query
from app.api.problems import EXPRESSION_ERRORS, problems
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
)

router = APIRouter(prefix="/v1/vectors", tags=["vectors"], route_class=VectorRoute)
Name = Annotated[str, Path(max_length=200)]


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    dependencies=[no_query],
    responses=problems(
        InvalidName, NameTaken, TooManyVectors, InvalidVector, *EXPRESSION_ERRORS, NotIndexed,
        NoShift, SpaceNotFound, SpaceMismatch, SpaceRequired,
        BodyTooLarge,
    ),
)  # fmt: skip
def store_vector(new: schemas.NewVector, services: ServicesDep, viewer: ViewerDep) -> schemas.StoredVector:
    """Store a vector, or the current value of an expression, under a name. If the request has an API key, only that key
    can see the stored vector.
    """
    stored, space = arithmetic_service.store(
        services.database,
        new.name,
        new.expression if new.expression is not None else new.vector or [],
        space_key=new.space,
        unit_terms=new.unit_terms,
        note=new.note,
        viewer=viewer,
    )
    return schemas.StoredVector.from_row(stored, space)


@router.get("", responses=problems(InvalidCursor))
def list_vectors(
    query: Annotated[PageQuery, Query()], services: ServicesDep, viewer: ViewerDep
) -> schemas.StoredVectors:
    """List the stored vectors without their numbers, oldest first."""
    after = pagination.decode(query.cursor)
    rows = arithmetic_service.list_page(services.database, after=after, limit=query.limit, viewer=viewer)
    return schemas.StoredVectors(
        vectors=[schemas.StoredVector.from_row(stored, space) for stored, space in rows],
        next_cursor=pagination.next_cursor(rows, query.limit, lambda row: row[0].id),
    )


@router.get("/{name}", dependencies=[no_query], responses=problems(VectorNotFound))
def get_vector(name: Name, services: ServicesDep, viewer: ViewerDep) -> schemas.StoredVectorWithNumbers:
    """Get a stored vector with its numbers."""
    return schemas.StoredVectorWithNumbers.from_row(*arithmetic_service.get(services.database, name, viewer))


@router.delete("/{name}", dependencies=[no_query], responses=problems(VectorNotFound))
def delete_vector(name: Name, services: ServicesDep, viewer: ViewerDep) -> schemas.StoredVector:
    """Delete a stored vector and return it. Stored expressions that used it keep their values."""
    return schemas.StoredVector.from_row(*arithmetic_service.delete(services.database, name, viewer))
