"""Routes of spaces, for admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from app.api.limits import no_query
from app.api.problems import problems
from app.api.services.services import ServicesDep
from app.api.spaces import schemas
from catalog.errors import ReindexActive, SpaceNotFound, SpaceServing
from catalog.removals import spaces as space_service

router = APIRouter(prefix="/v1/admin/spaces", tags=["admin"])
SpaceKey = Annotated[str, Path(pattern="^[0-9a-f]{8,64}$", description="Key of a space, or at least 8 digits of it.")]


@router.get("", dependencies=[no_query], responses=problems())
def list_all_spaces(services: ServicesDep) -> schemas.Spaces:
    """List all spaces, newest first, also those without vectors."""
    rows = space_service.list_spaces(services.database)
    return schemas.Spaces(spaces=[schemas.Space.with_vectors(*row) for row in rows])


@router.delete("/{key}", responses=problems(SpaceNotFound, SpaceServing, ReindexActive))
def drop_space(
    key: SpaceKey, query: Annotated[schemas.DropQuery, Query()], services: ServicesDep
) -> schemas.DroppedSpace:
    """Drop a space with its vectors, index, clusters, map and geometries, and the vectors that users stored in it."""
    return schemas.DroppedSpace.from_result(space_service.drop(services.database, key, force=query.force))
