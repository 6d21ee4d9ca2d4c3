from __future__ import annotations

from pathlib import Path

from fastapi.testclient import TestClient

from app.deployment.embedded import EmbeddedServers
from catalog.database import Database
from catalog.index import repository as snapshots
from catalog.index.follower import Follower
from catalog.tables import IndexSnapshot
from tests.support import catalog as entries
from tests.support.outage import away


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
    api.app.state.services = type(services).of(database, Follower(database, interval=1))  # has not read anything
    assert missing(api) == ["index"]


def test_a_broker_that_is_away_is_missing_until_it_is_back(api: TestClient, servers: EmbeddedServers):
    with away(servers.valkey):
        assert missing(api) == ["broker"]
        assert api.get("/healthz").status_code == 200
    assert missing(api) == []


def test_a_submission_does_not_wait_for_a_broker_that_is_away(api: TestClient, servers: EmbeddedServers):
    with away(servers.valkey):
        assert api.post("/v1/models", json={"repo_id": "a/b"}).status_code == 202


def test_a_database_that_is_away_is_missing_until_it_is_back(api: TestClient, servers: EmbeddedServers):
    with away(servers.postgres):
        assert missing(api) == ["database"]
        assert api.get("/healthz").status_code == 200
    assert missing(api) == []


def test_what_was_fallen_back_from_is_said_and_keeps_it_ready(api: TestClient, database: Database, tmp_path: Path):
    entries.put(database, "a/one", [1, 0])
    entries.put(database, "a/two", [1, 1])
    with database.transaction() as session:
        row = {"covered_seq": 1, "vectors": 2, "kind": "ivf_sq8", "path": "gone/1", "sha256": "0" * 64, "recall": 1}
        snapshots.publish(session, IndexSnapshot(space_id=1, generation=1, **row))
        snapshots.postpone(session, 1, 60, "disk_full: no room")

    assert len(api.get("/v1/models/a/one/neighbors").json()["neighbors"]) == 1
    assert missing(api) == []
    detail = api.get("/readyz").json()["checks"]["index"]["detail"]
    assert "space 1: 1 cannot be read" in detail
    assert "disk_full: no room" in detail
