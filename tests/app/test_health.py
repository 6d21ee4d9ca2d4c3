from __future__ import annotations

import time

from fastapi.testclient import TestClient

from app.cli.embedded import EmbeddedServers
from catalog.database import Database
from catalog.index import Follower
from tests.outage import away


def missing(api: TestClient) -> list[str]:
    """What is missing; the answer's other parts must agree."""
    response = api.get("/readyz")
    content = response.json()
    assert response.status_code == (503 if content["missing"] else 200)
    assert content["ready"] is not bool(content["missing"])
    assert [name for name, check in content["checks"].items() if not check["ok"]] == content["missing"]
    return content["missing"]


def test_a_process_that_is_up_says_so(api: TestClient):
    response = api.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "up"})


def test_it_is_ready_when_database_broker_and_index_are(api: TestClient):
    assert missing(api) == []
    assert set(api.get("/readyz").json()["checks"]) == {"database", "broker", "index"}


def test_an_index_that_is_not_loaded_is_missing(api: TestClient, database: Database):
    services = api.app.state.services
    api.app.state.services = type(services)(database, Follower(database, interval=1))  # has not read anything
    assert missing(api) == ["index"]


def test_a_broker_that_is_away_is_missing_until_it_is_back(api: TestClient, servers: EmbeddedServers):
    with away(servers.valkey):
        assert missing(api) == ["broker"]
        assert api.get("/healthz").status_code == 200
    assert missing(api) == []


def test_a_submission_does_not_wait_for_a_broker_that_is_away(api: TestClient, servers: EmbeddedServers):
    with away(servers.valkey):
        started = time.monotonic()
        assert api.post("/v1/models", json={"repo_id": "a/b"}).status_code == 202
        assert time.monotonic() - started < 2


def test_a_database_that_is_away_is_missing_until_it_is_back(api: TestClient, servers: EmbeddedServers):
    with away(servers.postgres):
        assert missing(api) == ["database"]
        assert api.get("/healthz").status_code == 200
    assert missing(api) == []
