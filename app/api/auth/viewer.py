"""The viewer of a request: the public, an API key or an admin."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.auth import admin, submitter
from app.api.settings import SettingsDep
from catalog.auth.viewer import ADMIN, Viewer


async def _viewer(
    settings: SettingsDep,
    key: submitter.KeyDep,
    admin_key: Annotated[str | None, Depends(admin.key_header)],
) -> Viewer:
    """Only the admin key makes a viewer an admin. Requests from this machine do not see private models without it."""
    if admin.is_admin_key(settings, admin_key):
        return ADMIN
    return Viewer.from_key(key)


ViewerDep = Annotated[Viewer, Depends(_viewer)]


class VaryByKeyMiddleware:
    """Adds the key headers to `Vary` in every response, errors included, for caches."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_vary(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name in (submitter.KEY_HEADER, admin.KEY_HEADER):
                    headers.add_vary_header(name)
            await send(message)

        await self._app(scope, receive, send_with_vary)
