"""What a request may not carry: too long a body, query parameters that the route does not know."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.schemas import Strict
from catalog.errors import BodyTooLarge

MAX_BODY = 4 * 2**20  # bytes; a vector of the highest dimension fits
SMALL_BODY = 2**16  # bytes of all other requests
# what takes vectors, examples, long lists of names, or what the Hub sends; reading JSON takes twenty times its length
LARGE = frozenset(
    {"/v1/search", "/v1/search/batch", "/v1/vectors", "/v1/tasks", "/v1/admin/crawls", "/v1/webhooks/hub"}
)


class BodyLimitMiddleware:
    """Refuses a body of more than `MAX_BODY` bytes, of most routes than `SMALL_BODY`. The length in the header is a
    claim: it counts what arrives.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        arrived = 0
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        limit = MAX_BODY if path in LARGE else SMALL_BODY

        async def counted() -> Message:
            nonlocal arrived
            message = await receive()
            arrived += len(message.get("body", b""))
            if arrived > limit:
                raise HTTPException(BodyTooLarge.status)
            return message

        await self._app(scope, counted, send)


async def _no_query(_: Annotated[Strict, Query()]) -> None:
    """Refuses every query parameter."""


no_query = Depends(_no_query)
