"""Routes of the map page: the files in `static/`, which send requests to this API only."""

from __future__ import annotations

import mimetypes
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FOLDER = Path(__file__).parent / "static"
# only scripts, styles and responses of this server: the names on the map are untrusted
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
def redirect_to_page() -> RedirectResponse:
    return RedirectResponse("/map")


@router.get("/map")
def get_page() -> FileResponse:
    return FileResponse(FOLDER / "index.html", headers=HEADERS, media_type="text/html")


class PageHeadersMiddleware:
    """Adds `HEADERS` to every file of the page."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self._app(scope, receive, with_headers)


for _suffix, _type in {".js": "text/javascript", ".css": "text/css"}.items():
    mimetypes.add_type(_type, _suffix)  # the system's table may have another type, which `nosniff` would reject
router.mount("/map", PageHeadersMiddleware(StaticFiles(directory=FOLDER)))
