from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from catalog.audit import repository as audit
from catalog.database import Database
from catalog.tables import Role
from tests.support import catalog as entries
from tests.support.keys import add_key
from tests.support.waiting import wait_until

KEY = "key of a team"
TEAM = {"X-API-Key": KEY}


@pytest.fixture(autouse=True)
def team(database: Database) -> str:
    """The name of a submitter's key, with its prefix."""
    return f"{KEY} ({add_key(database, KEY, Role.SUBMITTER).prefix})"


def acts(api: TestClient, **query: Any) -> list[tuple[str, str, str, str]]:
    entries = api.get("/v1/admin/audit", params=query).json()["audit"]
    return [(entry["actor"], entry["action"], entry["target"], entry["outcome"]) for entry in entries]


def test_acts_are_recorded_with_who_what_when_from_where_and_how_they_ended(api: TestClient, team: str):
    api.post("/v1/models", json={"repo_id": "a/b"}, headers=TEAM)
    api.post("/v1/models", json={"repo_id": "not a repo"}, headers=TEAM)
    job = api.get("/v1/jobs").json()["jobs"][0]["id"]
    api.post(f"/v1/jobs/{job}/cancel", headers=TEAM)
    api.post("/v1/admin/queues/encode/pause")
    assert acts(api) == [
        ("ADMIN_API_KEY", "POST /v1/admin/queues/{name}/pause", "encode", "done"),
        (team, "POST /v1/jobs/{job_id}/cancel", str(job), "done"),
        (team, "POST /v1/models", "", "invalid_repo_id"),
        (team, "POST /v1/models", "a/b", "done"),
    ]
    entry = api.get("/v1/admin/audit").json()["audit"][0]
    assert entry["address"] == "testclient"
    assert entry["at"] > "2026"


def test_reading_and_searching_are_not_recorded(api: TestClient, database: Database):
    entries.put(database, "a/b", [1.0, 0.0])
    for path in ("/v1/models", "/v1/jobs", "/v1/admin/queues"):
        api.get(path)
    api.post("/v1/search", json={"vector": [1, 0]})
    assert acts(api) == []


def test_refused_acts_of_known_keys_are_recorded(api: TestClient, team: str):
    api.post("/v1/admin/queues/encode/pause", headers=TEAM)
    assert acts(api) == [(team, "POST /v1/admin/queues/{name}/pause", "encode", "role_required")]


def test_requests_without_an_accepted_key_are_not_recorded(api: TestClient):
    for key in ("", "a key that nobody created"):
        assert api.post("/v1/models", json={"repo_id": "a/b"}, headers={"X-API-Key": key}).status_code == 401
    assert acts(api) == []


def test_new_key_is_recorded_by_its_prefix_alone(api: TestClient, database: Database):
    created = api.post("/v1/admin/keys", json={"name": "new"}).json()
    assert acts(api) == [("ADMIN_API_KEY", "POST /v1/admin/keys", created["prefix"], "done")]
    with database.transaction() as session:
        stored = session.execute(text("SELECT audit_entries::text FROM audit_entries")).scalar_one()
    assert created["key"] not in stored


def test_acts_are_found_by_actor_and_target(api: TestClient, team: str):
    api.post("/v1/models", json={"repo_id": "a/b"}, headers=TEAM)
    api.post("/v1/models", json={"repo_id": "a/c"})
    assert [act[2] for act in acts(api, actor="of a team")] == ["a/b"]
    assert [act[0] for act in acts(api, target="a/c")] == ["ADMIN_API_KEY"]
    assert acts(api, actor="%") == []


def test_acts_are_listed_in_pages(api: TestClient):
    for name in ("a/one", "a/two", "a/three"):
        api.post("/v1/models", json={"repo_id": name})
    first = api.get("/v1/admin/audit", params={"limit": 2}).json()
    rest = api.get("/v1/admin/audit", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [entry["target"] for entry in first["audit"] + rest["audit"]] == ["a/three", "a/two", "a/one"]


def test_old_acts_are_deleted(api: TestClient, database: Database):
    api.post("/v1/models", json={"repo_id": "a/old"})
    with database.transaction() as session:
        session.execute(text("UPDATE audit_entries SET at = now() - interval '2 hours'"))
    api.post("/v1/models", json={"repo_id": "a/new"})
    with database.transaction() as session:
        audit.delete_expired(session, 3600.0, 10)
    assert [act[2] for act in acts(api)] == ["a/new"]


def test_act_of_a_broken_route_is_recorded(api: TestClient, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("catalog.jobs.control.pause", broken)
    with pytest.raises(RuntimeError):
        api.post("/v1/admin/queues/encode/pause")
    wait_until(lambda: acts(api), "the act is recorded")
    assert acts(api)[0][3] == "500"
