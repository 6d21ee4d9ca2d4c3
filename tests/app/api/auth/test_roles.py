"""Every route, with every role, a key that is not accepted, and none: the table in docs/security.md holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi import APIRouter
from fastapi.testclient import TestClient

from app.api.auth.roles import required_role
from app.main import create_app
from catalog.auth import keys
from catalog.database import Database
from catalog.settings import Settings
from catalog.tables import Role
from tests.support.keys import ADMIN_KEY, add_key

PAGE = Path(__file__).parents[4] / "docs" / "security.md"
ROW = re.compile(r"\| `([A-Z]+) (/\S*)` \| (everybody|readers|submitters|admins) \|")
ROLES = {"everybody": None, "readers": Role.READER, "submitters": Role.SUBMITTER, "admins": Role.ADMIN}
TABLE = {(row[0], row[1]): ROLES[row[2]] for row in ROW.findall(PAGE.read_text(encoding="utf-8"))}
OPEN_PAGES = {("GET", path) for path in ("/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json", "/map/FILE")}
REFUSALS = ("key_required", "key_unknown", "key_expired", "key_revoked", "role_required")
HOLDERS = ("admin", "submitter", "reader", "anonymous", "expired", "revoked", "unknown", "no reading")


def routes_of(router: APIRouter) -> Iterator[tuple[str, str]]:
    for route in router.routes:
        if (included := getattr(route, "original_router", None)) is not None:
            yield from routes_of(included)
        elif getattr(route, "endpoint", None) is not None:
            yield from ((method, route.path) for method in route.methods - {"HEAD"})


ROUTES = sorted(routes_of(create_app(Settings()).router))


def test_table_lists_every_route_of_the_app():
    assert sorted({*ROUTES}) == sorted({*TABLE} | OPEN_PAGES - {("GET", "/map/FILE")})
    assert OPEN_PAGES.isdisjoint(TABLE)


def test_table_says_what_the_code_requires():
    assert {route: required_role(*route) for route in TABLE} == TABLE


@pytest.fixture
def holders(api: TestClient, database: Database) -> dict[str, dict[str, str]]:
    """The headers of all kinds of callers."""
    for role in (Role.READER, Role.SUBMITTER):
        add_key(database, f"key of a {role}", role)
    add_key(database, "an expired key", Role.ADMIN, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    keys.revoke(database, add_key(database, "a revoked key", Role.ADMIN).prefix)
    del api.headers["X-API-Key"]
    named = {
        "admin": ADMIN_KEY,
        "submitter": "key of a submitter",
        "reader": "key of a reader",
        "expired": "an expired key",
        "revoked": "a revoked key",
        "unknown": "a key that nobody created",
    }
    return {name: {"X-API-Key": key} for name, key in named.items()} | {"anonymous": {}, "no reading": {}}


def expected(holder: str, required: Role | None) -> str | None:
    """The code of the refusal; None if the route runs."""
    if required is None or holder == "admin":
        return None
    if holder in ("expired", "revoked", "unknown"):
        return f"key_{holder}"
    if holder == "no reading":
        return "key_required"
    held = Role.READER if holder == "anonymous" else Role(holder)
    if held.includes(required):
        return None
    return "key_required" if holder == "anonymous" else "role_required"


@pytest.mark.parametrize("holder", HOLDERS)
def test_every_route_is_open_to_its_role_alone(api: TestClient, holders: dict[str, dict[str, str]], holder: str):
    conf = api.app.state.settings
    api.app.state.settings = conf.model_copy(update={"anonymous_reading": holder != "no reading"})
    outcomes = {}
    for method, path in sorted(TABLE):
        if path in ("/v1/jobs/events",) and expected(holder, TABLE[method, path]) is None:
            continue  # a stream without an end
        url = re.sub(r"\{\w*id\}", "999", path)
        response = api.request(method, re.sub(r"\{\w+\}", "none", url), headers=holders[holder], follow_redirects=False)
        code = response.json().get("code") if response.status_code >= 400 else None
        outcomes[method, path] = code if code in REFUSALS else None
    assert outcomes == {route: expected(holder, TABLE[route]) for route in outcomes}


def test_bearer_tokens_are_keys(api: TestClient, holders: dict[str, dict[str, str]]):
    path = "/v1/admin/keys"
    assert api.get(path, headers={"Authorization": f"Bearer {ADMIN_KEY}"}).status_code == 200
    refused = api.get(path, headers={"Authorization": "Bearer key of a reader"})
    assert (refused.status_code, refused.json()["code"]) == (403, "role_required")
    basic = api.get(path, headers={"Authorization": "Basic a2V5OmtleQ=="})
    assert (basic.status_code, basic.json()["code"]) == (401, "key_required")
    assert basic.headers["WWW-Authenticate"] == "Bearer"


def test_unlisted_routes_are_for_admins():
    assert required_role("POST", "/v1/a/new/route") is Role.ADMIN
    assert required_role("DELETE", "/v1/models") is Role.ADMIN
