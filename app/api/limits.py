"""What a request may not carry: too long a body, query parameters that the route does not know."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.schemas import Strict
from catalog.errors import BodyTooLarge

MAX_BODY = 4 * 2**20  # bytes; a vector of the highest dimension fits


class BodyLimit:
    """Refuses a body of more than `MAX_BODY` bytes. The length in the header is a claim: it counts what arrives."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        arrived = 0

        async def counted() -> Message:
            nonlocal arrived
            message = await receive()
            arrived += len(message.get("body", b""))
            if arrived > MAX_BODY:
                raise HTTPException(BodyTooLarge.status)
            return message

        await self._app(scope, counted, send)


async def _no_query(_: Annotated[Strict, Query()]) -> None:
    """Refuses every query parameter."""


no_query = Depends(_no_query)
