"""Limits of requests: the size and the shape of the body, and unknown query parameters.

A body is parsed and validated in the event loop, and both take time for each value in it, even for a few bytes such as
`[]`. So values are counted before it is parsed: at its limits, no body takes more than 20 ms (`benchmarks.bodies`).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import render_error
from app.api.schemas import Strict
from catalog.errors import BodyTooLarge


@dataclass(frozen=True)
class BodyLimit:
    """The greatest body of a route: bytes, strings (names of fields included), values (members and items of all lists
    and objects), and structure: lists, objects and fields together, which cost most.
    """

    size: int
    strings: int
    values: int
    structure: int


SMALL = BodyLimit(2**16, 2_000, 2_000, 1_000)
VECTOR = BodyLimit(7 * 2**18, 20_000, 80_000, 100)  # a vector of the highest dimension, and the names of filters
# routes that take vectors, examples, many names, or webhooks
LARGE_BODIES = {
    "/v1/search": VECTOR,
    "/v1/search/batch": BodyLimit(2**20, 20_000, 20_000, 100),
    "/v1/vectors": VECTOR,
    "/v1/tasks": BodyLimit(2 * 2**20, 30_000, 20_000, 25_000),
    "/v1/admin/crawls": BodyLimit(2 * 2**20, 41_000, 41_000, 100),
    "/v1/webhooks/hub": BodyLimit(2**20, 32_000, 21_000, 21_000),
}
NO_BODY = ("GET", "HEAD", "OPTIONS")


def body_limit(path: str) -> BodyLimit:
    return LARGE_BODIES.get(path, SMALL)


class BodyLimitMiddleware:
    """Reads the body of a request, and rejects one over the limit of its route.

    It counts the bytes that arrive, because the `Content-Length` header may be wrong.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in NO_BODY:
            await self._app(scope, receive, send)
            return
        limit = body_limit(scope["path"].removeprefix(scope.get("root_path", "")))
        try:
            body = await _read(receive, limit)
        except BodyTooLarge as error:
            await render_error(Request(scope), error)(scope, receive, send)
            return
        if body is None:
            return  # the client is gone
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, replay, send)


async def _read(receive: Receive, limit: BodyLimit) -> bytes | None:
    """The body; None if the client disconnects before its end. Raises `BodyTooLarge`."""
    chunks, received = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunks.append(message.get("body", b""))
        received += len(chunks[-1])
        if received > limit.size:
            raise BodyTooLarge(f"The request body is longer than this route allows: {limit.size:,} bytes.")
        if not message.get("more_body"):
            break
    body = b"".join(chunks)
    check_shape(body, limit)
    return body


def check_shape(body: bytes, limit: BodyLimit) -> None:
    """Raises `BodyTooLarge` if JSON has more strings or values than the limit."""
    if b'\\"' in body:  # an escaped quotation mark is part of a string
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if body.count(b'"') > 2 * limit.strings:
        raise BodyTooLarge(
            f"The request body has more than {limit.strings:,} strings, which this route does not allow."
        )
    outside = b"".join(body.split(b'"')[::2])
    containers = outside.count(b"[") + outside.count(b"{")
    if containers + outside.count(b":") > limit.structure:
        raise BodyTooLarge(
            f"The request body has more than the {limit.structure:,} lists, objects and fields that this route allows."
        )
    if containers + outside.count(b",") > limit.values:
        raise BodyTooLarge(f"The request body has more than the {limit.values:,} values that this route allows.")


class _FastRequest(Request):
    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = from_json(await self.body())
        return self._json


class VectorRoute(APIRoute):
    """A route whose body has vectors: pydantic parses numbers in a quarter of the time of `json`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_fast(request: Request) -> Response:
            return await handle(_FastRequest(request.scope, request.receive))

        return handle_fast


async def _no_query(_: Annotated[Strict, Query()]) -> None:
    """Reject all query parameters."""


no_query = Depends(_no_query)
