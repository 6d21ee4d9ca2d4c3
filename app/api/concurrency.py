"""How many costly requests run at once: of each caller, and of all callers. Others wait, without holding a thread."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import render_error
from app.api.rate_limits import cost_of
from catalog.errors import TooManyAtOnce
from catalog.settings import Settings

COSTLY = 2  # units from which a request counts (`app.api.rate_limits`)
MAX_COSTLY = 12  # costly requests of all callers that a process runs at once; the other threads are for the rest
MAX_WAITING = 64  # costly requests of a caller that wait
MAX_WAIT = 10.0  # seconds
RETRY_AFTER = 1.0  # seconds after which a refused client should try again


@dataclass
class _Lane:
    """The costly requests of a caller."""

    slots: asyncio.Semaphore
    requests: int = 0  # running and waiting


@dataclass
class Lanes:
    """The slots of an event loop, and the lane of each caller that has costly requests now."""

    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_COSTLY))
    lanes: dict[str, _Lane] = field(default_factory=dict)

    async def enter(self, caller: str, limit: int) -> None:
        """Wait for one of the caller's slots, and for one of the process. Raises `TooManyAtOnce`."""
        lane = self.lanes.setdefault(caller, _Lane(asyncio.Semaphore(limit)))
        if lane.requests >= limit + MAX_WAITING:
            raise _too_many(limit)
        lane.requests += 1
        try:
            async with asyncio.timeout(MAX_WAIT):
                await lane.slots.acquire()
                try:
                    await self.slots.acquire()
                except BaseException:
                    lane.slots.release()
                    raise
        except BaseException as error:
            self._forget(caller, lane)
            if isinstance(error, TimeoutError):
                raise _too_many(limit) from error
            raise

    def leave(self, caller: str) -> None:
        lane = self.lanes[caller]
        self.slots.release()
        lane.slots.release()
        self._forget(caller, lane)

    def _forget(self, caller: str, lane: _Lane) -> None:
        lane.requests -= 1
        if not lane.requests:
            del self.lanes[caller]


class ConcurrencyMiddleware:
    """Makes costly requests wait for a slot, which they hold until their response begins."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_costly(scope):
            await self._app(scope, receive, send)
            return
        settings: Settings = scope["app"].state.settings
        lanes: Lanes = scope["app"].state.lanes
        caller: str = scope["state"]["limited_as"]
        try:
            await lanes.enter(caller, settings.concurrent_requests)
        except TooManyAtOnce as error:
            await render_error(Request(scope), error)(scope, receive, send)
            return
        inside = True

        def leave() -> None:
            nonlocal inside
            if inside:
                inside = False
                lanes.leave(caller)

        async def send_and_leave(message: Message) -> None:
            leave()
            await send(message)

        try:
            await self._app(scope, receive, send_and_leave)
        finally:
            leave()


def _is_costly(scope: Scope) -> bool:
    return cost_of(scope["method"], scope["path"].removeprefix(scope.get("root_path", ""))) >= COSTLY


def _too_many(limit: int) -> TooManyAtOnce:
    return TooManyAtOnce(
        f"Too many costly requests at once: {limit} of them run, and others wait. Send the next one once an answer has "
        "come.",
        RETRY_AFTER,
    )
