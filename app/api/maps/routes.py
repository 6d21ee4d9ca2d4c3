"""The route of the map."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response, status
from fastapi.concurrency import run_in_threadpool

from app.api.maps.schemas import Map
from app.api.problems import problems
from app.api.schemas import SpaceQuery
from app.api.services.map_body import decompress
from app.api.services.services import ServicesDep
from catalog.errors import IndexNotLoaded, MapNotReady, SpaceNotFound
from catalog.maps.view import MapVersion

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
async def get_map(query: Annotated[SpaceQuery, Query()], request: Request, services: ServicesDep) -> Response:
    """The coordinates of the models of a space, their clusters, and the distortion of each point."""
    version = await run_in_threadpool(services.map_cache.current_version, query.space)
    if _is_known(version, request):
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=_headers(version))
    body = await services.map_bodies.get(version)
    shown = body.view.version
    if _is_known(shown, request):
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=_headers(shown))
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        headers = _headers(shown) | {"Content-Encoding": "gzip"}
        return Response(body.compressed, headers=headers, media_type="application/json")
    text = await run_in_threadpool(decompress, body.compressed)
    return Response(text, headers=_headers(shown), media_type="application/json")


def _etag(version: MapVersion) -> str:
    return f'"{version.map_id}-{version.run_id or 0}-{version.last_seq}"'


def _is_known(version: MapVersion, request: Request) -> bool:
    return _etag(version) in request.headers.get("If-None-Match", "")


def _headers(version: MapVersion) -> dict[str, str]:
    return {"ETag": _etag(version), "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
