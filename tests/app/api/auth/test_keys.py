"""API keys: shown once, stored hashed, revocable, and what belongs to one stays its own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import text

from app.main import create_app
from catalog.auth.viewer import hash_key
from catalog.database import Database
from catalog.errors import Misconfigured
from catalog.settings import Settings, settings
from catalog.tables import Role
from tests.support import catalog as entries
from tests.support.keys import ADMIN_KEY, AS_ADMIN, add_key
from tests.support.problem_documents import documented_problem

KEYS = "/v1/admin/keys"


def create(api: TestClient, **fields: object) -> dict:
    response = api.post(KEYS, json={"name": "a team", **fields})
    assert response.status_code == 201
    return response.json()


def as_key(key: str) -> dict[str, str]:
    return {"X-API-Key": key}


def test_key_is_shown_once_and_stored_as_its_hash(api: TestClient, database: Database):
    created = create(api, role="submitter")
    assert created["key"].startswith(f"{created['prefix']}_")
    assert len(created["key"]) > len(created["prefix"]) + 30
    [listed] = api.get(KEYS).json()["keys"]
    assert "key" not in listed
    assert listed == {name: value for name, value in created.items() if name != "key"}
    with database.transaction() as session:
        stored = session.execute(text("SELECT api_keys::text FROM api_keys")).scalar_one()
    assert hash_key(created["key"]) in stored
    assert created["key"] not in stored


def test_keys_are_different(api: TestClient):
    assert len({create(api)["key"] for _ in range(3)}) == 3


def test_default_role_is_reader(api: TestClient):
    headers = as_key(create(api)["key"])
    assert api.get("/v1/models", headers=headers).status_code == 200
    response = api.post("/v1/models", json={"repo_id": "a/b"}, headers=headers)
    assert (response.status_code, documented_problem(response)["code"]) == (403, "role_required")


def test_revoked_key_is_refused_from_the_next_request_on(api: TestClient):
    created = create(api, role="submitter")
    headers = as_key(created["key"])
    assert api.post("/v1/models", json={"repo_id": "a/b"}, headers=headers).status_code == 202
    revoked = api.delete(f"{KEYS}/{created['prefix']}").json()
    response = api.get("/v1/models", headers=headers)
    assert (response.status_code, documented_problem(response)["code"]) == (401, "key_revoked")
    assert api.delete(f"{KEYS}/{created['prefix']}").json()["revoked_at"] == revoked["revoked_at"]


def test_key_expires(api: TestClient, database: Database):
    created = create(api, role="submitter", days=1)
    left = datetime.fromisoformat(created["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=23) < left <= timedelta(days=1)
    add_key(database, "an old key", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    response = api.get("/v1/models", headers=as_key("an old key"))
    assert (response.status_code, documented_problem(response)["code"]) == (401, "key_expired")


def test_last_use_is_recorded_to_the_minute(api: TestClient, database: Database):
    key = create(api)["key"]
    assert api.get(KEYS).json()["keys"][0]["last_used_at"] is None
    api.get("/v1/models", headers=as_key(key))
    first = api.get(KEYS).json()["keys"][0]["last_used_at"]
    assert first is not None
    api.get("/v1/models", headers=as_key(key))
    assert api.get(KEYS).json()["keys"][0]["last_used_at"] == first
    with database.transaction() as session:
        session.execute(text("UPDATE api_keys SET last_used_at = now() - interval '2 minutes'"))
    api.get("/v1/models", headers=as_key(key))
    assert api.get(KEYS).json()["keys"][0]["last_used_at"] >= first


def test_key_has_its_own_quota(api: TestClient):
    headers = as_key(create(api, role="submitter", max_active_jobs=1)["key"])
    assert api.post("/v1/models", json={"repo_id": "a/one"}, headers=headers).status_code == 202
    response = api.post("/v1/models", json={"repo_id": "a/two"}, headers=headers)
    assert (response.status_code, documented_problem(response)["code"]) == (429, "too_many_jobs")
    assert api.post("/v1/models", json={"repo_id": "a/two"}).status_code == 202  # the admin's


def test_key_of_another_admin_creates_keys_in_its_name(api: TestClient):
    admin = create(api, name="operations", role="admin")
    other = api.post(KEYS, json={"name": "x"}, headers=as_key(admin["key"])).json()
    assert (admin["created_by"], other["created_by"]) == ("ADMIN_API_KEY", f"operations ({admin['prefix']})")


@pytest.mark.parametrize(
    "fields", [{"name": ""}, {"name": "x" * 101}, {"role": "root"}, {"days": 0}, {"days": 1e9}, {"max_active_jobs": -1}]
)
def test_invalid_keys_are_rejected(api: TestClient, fields: dict):
    response = api.post(KEYS, json={"name": "a team", **fields})
    assert (response.status_code, documented_problem(response)["code"]) == (422, "invalid_input")
    assert api.get(KEYS).json()["keys"] == []


def test_unknown_key_cannot_be_revoked(api: TestClient):
    response = api.delete(f"{KEYS}/ddx_00000000")
    assert (response.status_code, documented_problem(response)["code"]) == (404, "key_not_found")


def test_keys_are_listed_in_pages(api: TestClient):
    prefixes = [create(api)["prefix"] for _ in range(3)]
    first = api.get(KEYS, params={"limit": 2}).json()
    second = api.get(KEYS, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [key["prefix"] for key in first["keys"] + second["keys"]] == prefixes[::-1]
    assert second["next_cursor"] is None


def test_unknown_key_is_not_repeated(api: TestClient):
    response = api.get("/v1/models", headers=as_key("a secret of a stranger"))
    assert (response.status_code, documented_problem(response)["code"]) == (401, "key_unknown")
    assert "stranger" not in response.text


def test_checks_of_load_balancers_ignore_keys(api: TestClient):
    assert api.get("/healthz", headers=as_key("a key that nobody created")).status_code == 200


def test_responses_depend_on_the_key_headers(api: TestClient):
    for path in ("/v1/models", "/v1/nothing"):
        assert {"X-API-Key", "Authorization"} <= set(api.get(path).headers["Vary"].split(", "))


# what belongs to a key


def test_what_an_admin_creates_with_a_key_belongs_to_that_key(api: TestClient, database: Database):
    entries.put(database, "a/b", [1.0, 0.0, 0.0])
    add_key(database, "key of a team")
    space = api.get("/v1/spaces").json()["spaces"][0]["key"]
    assert api.post("/v1/vectors", json={"name": "mine", "space": space, "vector": [1, 0, 0]}).status_code == 201
    assert [row["name"] for row in api.get("/v1/vectors").json()["vectors"]] == ["mine"]
    assert api.get("/v1/vectors", headers=as_key("key of a team")).json()["vectors"] == []
    assert api.get("/v1/vectors", headers={"X-API-Key": ""}).json()["vectors"] == []


def test_jobs_are_cancelled_and_retried_by_their_key_and_by_admins(api: TestClient, database: Database):
    for key in ("key of one", "key of two"):
        add_key(database, key)
    one, two = as_key("key of one"), as_key("key of two")
    job = api.post("/v1/models", json={"repo_id": "a/b"}, headers=one).json()["id"]
    for action in ("cancel", "retry"):
        response = api.post(f"/v1/jobs/{job}/{action}", headers=two)
        assert (response.status_code, documented_problem(response)["code"]) == (403, "not_yours")
    assert api.post(f"/v1/jobs/{job}/cancel", headers=one).json()["state"] == "cancelled"
    assert api.post(f"/v1/jobs/{job}/retry", headers=one).json()["state"] == "queued"
    assert api.post(f"/v1/jobs/{job}/cancel").json()["state"] == "cancelled"


def test_jobs_of_crawls_belong_to_admins(api: TestClient, database: Database):
    add_key(database, "key of one")
    job = entries.put_job(database, "a/b").id
    response = api.post(f"/v1/jobs/{job}/cancel", headers=as_key("key of one"))
    assert (response.status_code, documented_problem(response)["code"]) == (403, "not_yours")
    assert api.post(f"/v1/jobs/{job}/cancel").json()["state"] == "cancelled"


# the first key


def test_api_without_any_key_does_not_start(database: Database):
    conf = settings().model_copy(update={"admin_api_key": None, "feed_interval": 3600})
    with pytest.raises(Misconfigured, match="Set ADMIN_API_KEY to a secret"), TestClient(create_app(conf)):
        pass


def test_api_with_a_stored_key_starts(database: Database):
    add_key(database, "key of an admin", Role.ADMIN)
    conf = settings().model_copy(update={"admin_api_key": None, "feed_interval": 3600})
    with TestClient(create_app(conf), "http://localhost") as client:
        assert client.get(KEYS, headers=as_key("key of an admin")).status_code == 200
        assert client.get(KEYS, headers=AS_ADMIN).json()["code"] == "key_unknown"


@pytest.mark.parametrize("value", ["", "   "])
def test_empty_admin_key_is_no_key(monkeypatch: pytest.MonkeyPatch, value: str):
    monkeypatch.setenv("ADMIN_API_KEY", value)
    assert Settings().admin_api_key is None


def test_short_admin_key_is_rejected():
    with pytest.raises(Misconfigured, match="ADMIN_API_KEY has 5 characters"):
        Settings(admin_api_key=SecretStr("short"))


def test_admin_key_of_the_settings_is_not_listed(api: TestClient):
    assert api.get(KEYS).json()["keys"] == []
    assert ADMIN_KEY not in api.get(KEYS).text
