"""The route of the map."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response, status

from app.api.maps.schemas import Map
from app.api.problems import problems
from app.api.schemas import SpaceQuery
from app.api.services.map_body import decompress
from app.api.services.services import ServicesDep
from catalog.errors import IndexNotLoaded, MapNotReady, SpaceNotFound

router = APIRouter(prefix="/v1", tags=["map"])
NOT_MODIFIED = {"description": "The map has not changed since the ETag in `If-None-Match`."}


@router.get(
    "/map",
    response_class=Response,
    responses={
        200: {"model": Map},
        304: NOT_MODIFIED,
        **problems(MapNotReady, SpaceNotFound, IndexNotLoaded),
    },
)
def get_map(query: Annotated[SpaceQuery, Query()], request: Request, services: ServicesDep) -> Response:
    """The coordinates of the models of a space, their clusters, and the distortion of each point."""
    version = services.map_cache.current_version(query.space)
    etag = f'"{version.map_id}-{version.run_id or 0}-{version.last_seq}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if etag in request.headers.get("If-None-Match", ""):
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    body = services.map_body(version)
    if "gzip" not in request.headers.get("Accept-Encoding", ""):
        return Response(decompress(body), headers=headers, media_type="application/json")
    return Response(body, headers=headers | {"Content-Encoding": "gzip"}, media_type="application/json")
