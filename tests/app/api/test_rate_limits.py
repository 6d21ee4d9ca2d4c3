"""Rate limits, counted in a real Valkey."""

from __future__ import annotations

import logging
import re
import time
from typing import Any

import pytest
import redis
from fastapi.testclient import TestClient

from app.api import rate_limits
from app.api.rate_limits import COSTS, DEFAULT_COST, KEY_PREFIX, WINDOW, cost_of, identify
from app.client import Client
from app.deployment.embedded import EmbeddedServers
from catalog.auth.viewer import hash_key
from catalog.database import Database
from catalog.errors import RateLimited
from catalog.settings import settings
from tests.support.keys import ADMIN_KEY, add_key
from tests.support.outage import server_down
from tests.support.problem_documents import documented_problem, openapi
from tests.support.serving import serving
from tests.support.waiting import wait_until

LIMIT = 10
MY_KEY, YOUR_KEY = "a long key of my own", "a long key of your own"


@pytest.fixture
def api(api: TestClient, servers: EmbeddedServers, database: Database) -> TestClient:
    """An API with a limit, at the beginning of a window in which nothing was counted. It has accepted the keys."""
    for key in (MY_KEY, YOUR_KEY):
        add_key(database, key)
    limit(api, 0)
    for key in (ADMIN_KEY, MY_KEY, YOUR_KEY):
        assert api.get("/v1/jobs", headers={"X-API-Key": key}).status_code == 200
    limit(api, LIMIT)
    with redis.Redis.from_url(servers.redis_url) as server:
        for key in server.scan_iter(f"{KEY_PREFIX}*"):
            server.delete(key)
    if time.time() % WINDOW > WINDOW - 15:
        time.sleep(WINDOW - time.time() % WINDOW)
    return api


def limit(api: TestClient, units: int) -> None:
    api.app.state.settings = settings().model_copy(update={"rate_limit": units})


def remaining(response: Any) -> int:
    [units] = re.findall(r'^"default";r=(\d+);t=\d+$', response.headers["RateLimit"])
    return int(units)


def test_request_over_the_limit_returns_429_with_the_standard_headers(api: TestClient):
    left = [remaining(api.get("/v1/jobs")) for _ in range(LIMIT)]
    assert left == [*range(LIMIT - 1, -1, -1)]

    response = api.get("/v1/jobs")

    assert (response.status_code, documented_problem(response)["code"]) == (429, "rate_limited")
    assert remaining(response) == 0
    assert response.headers["RateLimit-Policy"] == f'"default";q={LIMIT};w={WINDOW}'
    assert 1 <= int(response.headers["Retry-After"]) <= WINDOW
    assert response.headers["RateLimit"].endswith(f";t={response.headers['Retry-After']}")


def test_refused_request_changes_nothing(api: TestClient):
    for _ in range(LIMIT):
        api.get("/v1/jobs")
    assert api.post("/v1/models", json={"repo_id": "a/b"}).status_code == 429
    limit(api, 0)
    assert api.get("/v1/jobs").json()["jobs"] == []


def test_every_response_has_the_headers(api: TestClient):
    for path in ("/v1/models/no/body", "/v1/jobs?x=1", "/no/such/route"):
        assert remaining(api.get(path)) < LIMIT


def test_expensive_route_costs_more_units(api: TestClient):
    assert remaining(api.get("/v1/map")) == LIMIT - COSTS["GET", "/v1/map"] == LIMIT - 5


def test_route_that_costs_more_than_the_limit_can_be_used_once(api: TestClient):
    body = {"examples": []}
    assert api.post("/v1/tasks", json=body).status_code == 422
    assert api.post("/v1/tasks", json=body).status_code == 429


def test_health_checks_are_not_counted(api: TestClient):
    for _ in range(2 * LIMIT):
        response = api.get("/healthz")
        assert response.status_code == 200
    assert "RateLimit" not in response.headers
    assert remaining(api.get("/v1/jobs")) == LIMIT - 1


def test_keys_are_counted_apart(api: TestClient):
    for _ in range(LIMIT):
        api.get("/v1/jobs", headers={"X-API-Key": MY_KEY})
    assert api.get("/v1/jobs", headers={"X-API-Key": MY_KEY}).status_code == 429
    assert api.get("/v1/jobs", headers={"X-API-Key": "", "Authorization": f"Bearer {MY_KEY}"}).status_code == 429
    assert api.get("/v1/jobs", headers={"X-API-Key": YOUR_KEY}).status_code == 200
    assert api.get("/v1/jobs").status_code == 200


def test_invented_keys_count_for_the_address(api: TestClient):
    codes = [api.get("/v1/jobs", headers={"X-API-Key": f"invented {number}"}).status_code for number in range(LIMIT)]
    assert codes == [401] * LIMIT
    assert api.get("/v1/jobs", headers={"X-API-Key": "another one"}).status_code == 429
    assert api.get("/v1/jobs", headers={"X-API-Key": ""}).status_code == 429
    assert api.get("/v1/jobs", headers={"X-API-Key": MY_KEY}).status_code == 200


def test_units_are_back_in_the_next_window(api: TestClient):
    for _ in range(LIMIT + 1):
        response = api.get("/v1/jobs")
    assert response.status_code == 429
    api.app.state.rate_limiter._clock = lambda: time.time() + WINDOW
    assert api.get("/v1/jobs").status_code == 200


def test_keys_in_redis_hold_no_secret_and_expire(api: TestClient, servers: EmbeddedServers):
    api.get("/v1/jobs", headers={"X-API-Key": MY_KEY})
    with redis.Redis.from_url(servers.redis_url, decode_responses=True) as server:
        [key] = server.scan_iter(f"{KEY_PREFIX}*")
        assert hash_key(MY_KEY) in key
        assert MY_KEY not in key
        assert 0 < server.ttl(key) <= WINDOW


def test_zero_switches_limits_off(api: TestClient):
    limit(api, 0)
    responses = [api.get("/v1/jobs") for _ in range(LIMIT + 1)]
    assert {response.status_code for response in responses} == {200}
    assert "RateLimit" not in responses[-1].headers


def test_api_answers_without_limits_while_redis_is_down(
    api: TestClient, servers: EmbeddedServers, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(rate_limits, "OUTAGE_PAUSE", 0)
    with caplog.at_level(logging.WARNING, rate_limits.log.name):
        with server_down(servers.valkey):
            assert [api.get("/v1/jobs").status_code for _ in range(2 * LIMIT)] == [200] * 2 * LIMIT
        wait_until(lambda: "RateLimit" in api.get("/v1/jobs").headers, "requests are counted again")
    messages = [record.message for record in caplog.records if record.name == rate_limits.log.name]
    assert [message.split(":")[0] for message in messages] == [
        "rate limits are off until Redis answers again", "Redis answers again",
    ]  # fmt: skip


def test_redis_that_is_down_is_not_asked_for_each_request(
    api: TestClient, servers: EmbeddedServers, monkeypatch: pytest.MonkeyPatch
):
    limiter, asked = api.app.state.rate_limiter, []
    incr = limiter._storage.incr

    async def count(*arguments: Any, **options: Any) -> int:
        asked.append(arguments)
        return await incr(*arguments, **options)

    monkeypatch.setattr(limiter._storage, "incr", count)
    with server_down(servers.valkey):
        for _ in range(5):
            api.get("/v1/jobs")
    assert len(asked) == 1


def test_every_cost_belongs_to_a_route():
    routes = {(method.upper(), path) for path, methods in openapi()["paths"].items() for method in methods}
    assert set(COSTS) <= routes


@pytest.mark.parametrize(
    ("method", "path", "cost"),
    [
        ("GET", "/v1/tasks/12/neighbors", 10),
        ("GET", "/v1/tasks/12", DEFAULT_COST),
        ("GET", "/v1/models/a/b/neighbors", 2),
        ("DELETE", "/v1/tasks/12/neighbors", DEFAULT_COST),
        ("POST", "/v1/search/batch", 50),
        ("GET", "/v1/search/batch/x", DEFAULT_COST),
    ],
)
def test_cost_is_that_of_the_route(method: str, path: str, cost: int):
    assert cost_of(method, path) == cost


def scope(host: str | None, **headers: str) -> dict[str, Any]:
    raw = [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "headers": raw, "client": (host, 1) if host else None}


@pytest.mark.parametrize(
    ("host", "headers", "caller"),
    [
        ("203.0.113.9", {}, "address:203.0.113.9"),
        ("::ffff:203.0.113.9", {}, "address:203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", {}, "address:2001:db8:1:2::"),
        (None, {}, "address:unknown"),
        ("203.0.113.9", {"X_Forwarded_For": "198.51.100.1", "Forwarded": "for=198.51.100.1"}, "address:203.0.113.9"),
        ("203.0.113.9", {"Authorization": "Basic abc"}, "address:203.0.113.9"),
        ("203.0.113.9", {"X_API_Key": YOUR_KEY}, "address:203.0.113.9"),
        ("203.0.113.9", {"X_API_Key": MY_KEY}, f"key:{hash_key(MY_KEY)}"),
        ("203.0.113.9", {"Authorization": f"bearer  {MY_KEY}"}, f"key:{hash_key(MY_KEY)}"),
    ],
)
def test_caller_is_the_key_or_else_the_network_of_the_connection(host: str, headers: dict[str, str], caller: str):
    assert identify(scope(host, **headers), {hash_key(MY_KEY)}) == caller


def test_command_line_waits_for_the_next_window(database: Database, monkeypatch: pytest.MonkeyPatch):
    from app.main import create_app

    waits: list[float] = []
    conf = settings().model_copy(update={"rate_limit": 1})
    app = create_app(conf)

    def wait(seconds: float) -> None:
        waits.append(seconds)
        app.state.settings = settings()

    with serving(app) as address, Client(address, ADMIN_KEY) as client:
        for _ in range(2):  # the first one counts for the address: the key is not known to be accepted
            client.get("/v1/jobs")
        monkeypatch.setattr("app.client.time.sleep", wait)
        assert client.get("/v1/jobs")["jobs"] == []
        monkeypatch.undo()
    assert len(waits) == 1
    assert 1 <= waits[0] <= WINDOW


def test_error_is_transient():
    assert RateLimited("x", 3).transient
