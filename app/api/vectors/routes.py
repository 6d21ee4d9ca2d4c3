"""Routes: vectors under names."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, status

from app.api import pagination
from app.api.auth.viewer import ViewerDep
from app.api.limits import no_query
from app.api.problems import problems
from app.api.schemas import PageQuery
from app.api.services.services import ServicesDep
from app.api.vectors import schemas
from catalog.arithmetic import repository as stored_vectors
from catalog.arithmetic import service as arithmetic_service
from catalog.errors import (
    AmbiguousTerm,
    BodyTooLarge,
    InvalidCursor,
    InvalidExpression,
    InvalidName,
    InvalidVector,
    MergeNotDone,
    NameTaken,
    NoShift,
    NothingLeft,
    NotIndexed,
    SpaceMismatch,
    SpaceNotFound,
    SpaceRequired,
    TaskNotDone,
    TermNotFound,
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
        InvalidName, NameTaken, TooManyVectors, InvalidVector, InvalidExpression, TermNotFound, TaskNotDone,
        MergeNotDone, AmbiguousTerm, NothingLeft, NotIndexed, NoShift, SpaceNotFound, SpaceMismatch, SpaceRequired,
        BodyTooLarge, WeakKey,
    ),
)  # fmt: skip
def store(new: schemas.NewVector, services: ServicesDep, viewer: ViewerDep) -> schemas.StoredVector:
    """Give a name to a vector of yours, or to what an expression comes to now. With an API key it is shown to that key
    alone.
    """
    if new.expression is not None:
        saved = arithmetic_service.save_expression(
            services.database,
            new.name,
            new.expression,
            space_key=new.space,
            unit_terms=new.unit_terms,
            note=new.note,
            viewer=viewer,
        )
    else:
        saved = arithmetic_service.save_vector(
            services.database, new.name, new.vector or [], space_key=new.space, note=new.note, viewer=viewer
        )
    return schemas.StoredVector.of(*saved)


@router.get("", responses=problems(InvalidCursor, WeakKey))
def page(query: Annotated[PageQuery, Query()], services: ServicesDep, viewer: ViewerDep) -> schemas.StoredVectors:
    """The stored vectors without their numbers, the oldest first."""
    with services.database.transaction() as session:
        found = stored_vectors.page(session, viewer, after=pagination.decode(query.cursor) or 0, limit=query.limit)
    more = pagination.encode(found[-1][0].id) if len(found) == query.limit else None
    return schemas.StoredVectors(vectors=[schemas.StoredVector.of(*each) for each in found], next_cursor=more)


@router.get("/{name}", dependencies=[no_query], responses=problems(VectorNotFound, WeakKey))
def get(name: Name, services: ServicesDep, viewer: ViewerDep) -> schemas.StoredNumbers:
    """A stored vector."""
    with services.database.transaction() as session:
        return schemas.StoredNumbers.of(*stored_vectors.get(session, name, viewer))


@router.delete("/{name}", dependencies=[no_query], responses=problems(VectorNotFound, WeakKey))
def delete(name: Name, services: ServicesDep, viewer: ViewerDep) -> schemas.StoredVector:
    """Forget a stored vector; the answer is what it was. What was computed from it stays."""
    with services.database.transaction() as session:
        return schemas.StoredVector.of(*stored_vectors.remove(session, name, viewer))
