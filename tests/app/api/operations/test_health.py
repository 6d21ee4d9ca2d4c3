from __future__ import annotations

from pathlib import Path

from fastapi.testclient import TestClient

from app.api.services.readiness import MAX_AGE, UNKNOWN, Readiness
from app.deployment.embedded import EmbeddedServers
from catalog.database import Database
from catalog.index import repository as snapshots
from catalog.index.follower import IndexFollower
from catalog.jobs.repository import workers
from catalog.tables import IndexSnapshot
from tests.support import catalog as entries
from tests.support.keys import AS_ADMIN, AS_ANYBODY
from tests.support.outage import server_down


def missing_checks(api: TestClient) -> list[str]:
    """The checks that `/readyz` reports as missing; asserts that status and body agree with them."""
    api.app.state.services.readiness.check()
    response = api.get("/readyz")
    content = response.json()
    needed = set(content["failed_checks"]) - {"hub_token"}
    assert response.status_code == (503 if needed else 200)
    assert content["ready"] is not bool(needed)
    assert [name for name, check in content["checks"].items() if not check["ok"]] == content["failed_checks"]
    return content["failed_checks"]


def test_healthz_returns_up(api: TestClient):
    response = api.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "up"})


def test_ready_when_database_broker_and_index_are(api: TestClient):
    assert missing_checks(api) == []
    assert set(api.get("/readyz").json()["checks"]) == {"database", "broker", "index", "hub_token"}


def test_index_that_is_not_loaded_is_reported_missing(api: TestClient, database: Database):
    index = IndexFollower(database, interval=1)  # nothing loaded yet
    api.app.state.services = type(api.app.state.services).create(database, database, index, heartbeat_timeout=30)
    assert missing_checks(api) == ["index"]


def test_unreachable_broker_is_reported_missing_until_it_is_back(api: TestClient, servers: EmbeddedServers):
    with server_down(servers.valkey):
        assert missing_checks(api) == ["broker"]
        assert api.get("/healthz").status_code == 200
    assert missing_checks(api) == []


def test_submission_does_not_wait_for_an_unreachable_broker(api: TestClient, servers: EmbeddedServers):
    with server_down(servers.valkey):
        assert api.post("/v1/models", json={"repo_id": "a/b"}).status_code == 202


def test_unreachable_database_is_reported_missing_until_it_is_back(api: TestClient, servers: EmbeddedServers):
    with server_down(servers.postgres):
        assert missing_checks(api) == ["database"]
        assert api.get("/healthz").status_code == 200
    assert missing_checks(api) == []


def test_damaged_segment_and_failed_build_are_reported_but_ready(api: TestClient, database: Database, tmp_path: Path):
    entries.put(database, "a/one", [1, 0])
    entries.put(database, "a/two", [1, 1])
    with database.transaction() as session:
        row = {"covered_seq": 1, "vectors": 2, "kind": "ivf_sq8", "path": "gone/1", "sha256": "0" * 64, "recall": 1}
        snapshots.publish(session, IndexSnapshot(space_id=1, generation=1, **row))
        snapshots.postpone(session, 1, 60, "disk_full: no room")

    assert len(api.get("/v1/models/a/one/neighbors").json()["neighbors"]) == 1
    assert missing_checks(api) == []
    detail = api.get("/readyz", headers=AS_ADMIN).json()["checks"]["index"]["detail"]
    assert "space 1: 1 cannot be read" in detail
    assert "disk_full: no room" in detail


def test_invalid_token_of_a_worker_is_reported_but_ready(api: TestClient, database: Database):
    with database.transaction() as session:
        worker_id = workers.register(session, "gpu-1", 7, "cpu")
        workers.record_heartbeat(session, worker_id, {"hub_token_invalid": True})
    assert missing_checks(api) == ["hub_token"]
    detail = api.get("/readyz", headers=AS_ADMIN).json()["checks"]["hub_token"]["detail"]
    assert detail.startswith("hub_token_invalid: ")
    assert "gpu-1:7" in detail

    with database.transaction() as session:
        workers.record_heartbeat(session, worker_id, {"hub_token_invalid": False})
    assert missing_checks(api) == []


def test_check_that_is_too_old_says_nothing(database: Database):
    now = 0.0
    readiness = Readiness(database, IndexFollower(database, interval=1), 30, clock=lambda: now)
    assert readiness.dependencies == UNKNOWN
    readiness.check()
    assert readiness.dependencies.database
    now = MAX_AGE + 1  # the next check waits for a server that does not answer
    assert readiness.dependencies == UNKNOWN


def test_readiness_is_read_without_asking_a_server(api: TestClient, servers: EmbeddedServers):
    api.app.state.services.readiness.stop()
    api.app.state.services.readiness.check()
    with server_down(servers.postgres):
        assert api.get("/readyz", headers=AS_ANYBODY).json()["ready"]
