"""Who asks: what is private is shown to some keys, and to admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.auth import admin, submitter
from app.api.settings import SettingsDep
from catalog.auth.viewer import EVERYTHING, Viewer


async def _viewer(
    settings: SettingsDep,
    key: submitter.KeyDep,
    admin_key: Annotated[str | None, Depends(admin.key_header)],
) -> Viewer:
    """Being on this machine does not make an admin here: whoever looks without a key is nobody in particular."""
    if admin.is_the_admins(settings, admin_key):
        return EVERYTHING
    return Viewer.of_key(key)


ViewerDep = Annotated[Viewer, Depends(_viewer)]


class VaryByKeyMiddleware:
    """Tells caches that an answer is for whoever sent the same keys, errors too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def varying(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name in (submitter.KEY_HEADER, admin.KEY_HEADER):
                    headers.add_vary_header(name)
            await send(message)

        await self._app(scope, receive, varying)
