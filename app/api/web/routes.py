"""The page of the map: files of `static/`, which ask this API and nobody else."""

from __future__ import annotations

import mimetypes
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FOLDER = Path(__file__).parent / "static"
# scripts, styles and answers of this server alone: names on the map are strangers' words
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

router = APIRouter(include_in_schema=False)


@router.get("/")
@router.get("/map/")
def home() -> RedirectResponse:
    return RedirectResponse("/map")


@router.get("/map")
def page() -> FileResponse:
    return FileResponse(FOLDER / "index.html", headers=HEADERS, media_type="text/html")


class PageHeadersMiddleware:
    """Adds the headers of the page to every file of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self._app(scope, receive, with_headers)


for _suffix, _type in {".js": "text/javascript", ".css": "text/css"}.items():
    mimetypes.add_type(_type, _suffix)  # a machine's own table may have another, which `nosniff` would refuse
router.mount("/map", PageHeadersMiddleware(StaticFiles(directory=FOLDER)))
