"""`Vary` headers: responses depend on the API key."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.auth.caller import KEY_HEADER


class VaryByKeyMiddleware:
    """Adds the headers with keys to `Vary` in every response, errors included, for caches."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_vary(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name in (KEY_HEADER, "Authorization"):
                    headers.add_vary_header(name)
            await send(message)

        await self._app(scope, receive, send_with_vary)
