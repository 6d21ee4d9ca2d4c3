"""Records each act that changes something: who, what, when, from where, and how it ended."""

from __future__ import annotations

import json
import logging
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.auth.roles import required_role
from catalog.audit import service as audit_service
from catalog.audit.service import Act
from catalog.errors import DatabaseUnavailable
from catalog.tables import Role

MAX_BODY = 2**16  # bytes of a response that are read for its target
NAMES = ("repo_id", "prefix", "name", "value", "id")  # fields of a response that name what it is about, best first
READING = ("GET", "HEAD", "OPTIONS")
WEBHOOK = "the Hub's webhook"

log = logging.getLogger(__name__)


class AuditMiddleware:
    """Stores an act after its response was sent. Reading and searching are no acts; requests whose key or secret was
    refused have no actor, and are not recorded.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in READING:
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})  # in which a route leaves its caller
        status, body = 500, bytearray()

        async def send_and_read(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif len(body) < MAX_BODY:
                body.extend(message.get("body", b"")[: MAX_BODY - len(body)])
            await send(message)

        try:
            await self._app(scope, receive, send_and_read)
        finally:
            if (act := _act(scope, status, bytes(body))) is not None:
                await run_in_threadpool(_record, scope["app"].state.services.database, act)


def _act(scope: Scope, status: int, body: bytes) -> Act | None:
    route, caller = scope.get("route"), scope["state"].get("caller")
    if route is None or caller is None:
        return None
    required = required_role(scope["method"], route.path)
    if required is Role.READER or (caller.is_anonymous and (required is not None or status >= 400)):
        return None
    content = _decoded(body)
    target = "/".join(map(str, scope.get("path_params", {}).values())) or next(
        (str(content[name]) for name in NAMES if content.get(name) is not None), ""
    )
    return Act(
        actor=caller.name if required is not None else WEBHOOK,
        action=f"{scope['method']} {route.path}",
        target=target,
        address=(scope.get("client") or ("",))[0],
        outcome=audit_service.DONE if status < 400 else str(content.get("code", status)),
    )


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _record(database: Any, act: Act) -> None:
    try:
        audit_service.record(database, act)
    except DatabaseUnavailable:
        log.warning("not in the audit log, because Postgres does not answer: %s", act)
