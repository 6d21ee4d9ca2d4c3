"""Route: the map of a space."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response, status

from app.api.maps.schemas import Map
from app.api.problems import problems
from app.api.schemas import SpaceQuery
from app.api.services.map_body import plain
from app.api.services.services import ServicesDep
from catalog.errors import IndexNotLoaded, NotMapped, SpaceNotFound

router = APIRouter(prefix="/v1", tags=["map"])
NOT_MODIFIED = {"description": "The map is still the one of `If-None-Match`."}


@router.get(
    "/map",
    response_class=Response,
    responses={
        200: {"model": Map},
        304: NOT_MODIFIED,
        **problems(NotMapped, SpaceNotFound, IndexNotLoaded),
    },
)
def show(query: Annotated[SpaceQuery, Query()], request: Request, services: ServicesDep) -> Response:
    """Where the models of a space lie in the plane, their clusters, and how far each place can be trusted."""
    standing = services.atlas.standing(query.space)
    tag = f'"{standing.map_id}-{standing.run_id or 0}-{standing.last_seq}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if tag in request.headers.get("If-None-Match", ""):
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    body = services.map_body(standing)
    if "gzip" not in request.headers.get("Accept-Encoding", ""):
        return Response(plain(body), headers=headers, media_type="application/json")
    return Response(body, headers=headers | {"Content-Encoding": "gzip"}, media_type="application/json")
