"""Limits of requests: the size of the body, and unknown query parameters."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.schemas import Strict
from catalog.errors import BodyTooLarge

MAX_BODY = 4 * 2**20  # bytes; a vector of the highest dimension fits
MAX_SMALL_BODY = 2**16  # bytes, for all other routes
# routes that take vectors, examples, many names, or webhooks; parsing JSON takes twenty times its size in memory
LARGE_BODY_ROUTES = frozenset(
    {"/v1/search", "/v1/search/batch", "/v1/vectors", "/v1/tasks", "/v1/admin/crawls", "/v1/webhooks/hub"}
)


class BodyLimitMiddleware:
    """Rejects bodies over `MAX_BODY` bytes for the `LARGE_BODY_ROUTES`, and over `MAX_SMALL_BODY` bytes for all others.

    It counts the bytes that arrive, because the `Content-Length` header may be wrong.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        received = 0
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        limit = MAX_BODY if path in LARGE_BODY_ROUTES else MAX_SMALL_BODY

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise HTTPException(BodyTooLarge.status)
            return message

        await self._app(scope, receive_limited, send)


async def _no_query(_: Annotated[Strict, Query()]) -> None:
    """Reject all query parameters."""


no_query = Depends(_no_query)
