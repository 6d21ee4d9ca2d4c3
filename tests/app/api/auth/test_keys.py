"""What protects something is no key that others find by trying, and an empty secret is none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from app.main import create_app
from catalog.auth.viewer import LEAST_KEY, hash_of_key
from catalog.database import Database
from catalog.settings import Settings, settings
from tests.support import catalog as entries
from tests.support.problem_documents import documented_problem, openapi

SHORT = "s" * (LEAST_KEY - 1)
LONG = "l" * LEAST_KEY
ADMIN_KEY = "a" * LEAST_KEY
SECRET = "hidden-owner/hidden-name"
FAR = ("203.0.113.9", 5555)  # not this machine
READING_KEYS = [
    (method, path)
    for path, methods in openapi()["paths"].items()
    for method, route in methods.items()
    if any("SubmitterKey" in each for each in route.get("security", ()))
]


@contextmanager
def from_afar(conf: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(conf.model_copy(update={"feed_interval": 3600})), client=FAR) as client:
        yield client


def test_most_routes_read_keys():
    assert {("post", "/v1/models"), ("post", "/v1/vectors"), ("get", "/v1/jobs/events")} < set(READING_KEYS)


@pytest.mark.parametrize(("method", "path"), READING_KEYS)
def test_a_route_that_reads_keys_refuses_a_short_one(api: TestClient, method: str, path: str):
    response = api.request(method, re.sub(r"\{\w+\}", "1", path), headers={"X-API-Key": SHORT})
    problem = documented_problem(response)
    assert (response.status_code, problem["code"]) == (422, "weak_key")
    assert f"at least {LEAST_KEY} characters" in problem["detail"]
    assert SHORT not in response.text


def test_a_token_that_comes_with_a_short_key_is_not_taken(api: TestClient):
    headers = {"X-API-Key": SHORT, "X-Hub-Token": "hf_me"}
    response = api.post("/v1/models", json={"repo_id": SECRET}, headers=headers)
    assert documented_problem(response)["code"] == "weak_key"
    assert api.get("/v1/jobs").json()["jobs"] == []


def test_a_key_of_the_least_length_is_taken(api: TestClient):
    response = api.post("/v1/models", json={"repo_id": "a/b"}, headers={"X-API-Key": LONG})
    assert response.status_code == 202


def test_an_empty_key_is_none(api: TestClient):
    assert api.get("/v1/models", headers={"X-API-Key": ""}).status_code == 200


@pytest.fixture
def administered(api: TestClient, database: Database) -> TestClient:
    """An API of which the client is an admin, with a private model."""
    entries.put_private(database, SECRET, [1, 0, 0], hash_of_key(LONG))
    api.app.state.settings = api.app.state.settings.model_copy(update={"admin_api_key": SecretStr(ADMIN_KEY)})
    api.headers["X-Admin-Key"] = ADMIN_KEY
    return api


def test_nobody_is_let_in_by_a_short_key(administered: TestClient):
    address = f"/v1/admin/models/{SECRET}/access"
    before = administered.get(address).json()
    response = administered.put(address, json={"key": SHORT})
    assert documented_problem(response)["code"] == "weak_key"
    assert administered.get(address).json() == before


def test_a_short_key_that_was_let_in_before_can_be_taken_back(administered: TestClient):
    address = f"/v1/admin/models/{SECRET}/access"
    administered.put(address, json={"submitter": hash_of_key(SHORT)})
    left = administered.request("DELETE", address, json={"key": SHORT}).json()["access"]
    assert [each["submitter"] for each in left] == [hash_of_key(LONG)]


def test_a_short_key_sees_nothing_also_where_its_hash_was_let_in(administered: TestClient):
    administered.put(f"/v1/admin/models/{SECRET}/access", json={"submitter": hash_of_key(SHORT)})
    del administered.headers["X-Admin-Key"]
    response = administered.get(f"/v1/models/{SECRET}", headers={"X-API-Key": SHORT})
    assert documented_problem(response)["code"] == "weak_key"


def set_in_the_environment(value: str) -> Callable[[pytest.MonkeyPatch], Settings]:
    def read(monkeypatch: pytest.MonkeyPatch) -> Settings:
        monkeypatch.setenv("ADMIN_API_KEY", value)
        return Settings()

    return read


def put_in_afterwards(_: pytest.MonkeyPatch) -> Settings:
    return settings().model_copy(update={"admin_api_key": SecretStr("")})


@pytest.mark.parametrize("headers", [{}, {"X-Admin-Key": ""}, {"X-Admin-Key": " "}])
@pytest.mark.parametrize("read", [set_in_the_environment(""), set_in_the_environment(" \n"), put_in_afterwards])
def test_an_empty_admin_key_makes_nobody_an_admin(
    database: Database, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], read: Callable
):
    entries.put_private(database, SECRET, [1, 0, 0], hash_of_key(LONG))
    with from_afar(read(monkeypatch)) as api:
        response = api.get("/v1/admin/queues", headers=headers)
        assert documented_problem(response)["code"] in ("admin_only", "admin_key_required")
        assert api.get("/v1/models", headers=headers).json()["models"] == []


def test_an_admin_key_from_a_file_is_taken_without_its_newline(database: Database, monkeypatch: pytest.MonkeyPatch):
    with from_afar(set_in_the_environment(f"{ADMIN_KEY}\n")(monkeypatch)) as api:
        assert api.get("/v1/admin/queues", headers={"X-Admin-Key": ADMIN_KEY}).status_code == 200


def test_an_empty_webhook_secret_leaves_the_webhook_off(database: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DELTADEX_WEBHOOK_SECRET", "")
    with from_afar(Settings()) as api:
        repo = {"type": "model", "name": "a/b", "private": False}
        told = {"event": {"action": "update", "scope": "repo"}, "repo": repo}
        response = api.post("/v1/webhooks/hub", json=told, headers={"X-Webhook-Secret": ""})
        assert documented_problem(response)["code"] == "webhook_off"


def test_an_empty_key_to_seal_with_takes_no_tokens(database: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DELTADEX_TOKEN_KEY", "  ")
    with from_afar(Settings()) as api:
        headers = {"X-API-Key": LONG, "X-Hub-Token": "hf_me"}
        response = api.post("/v1/models", json={"repo_id": "a/b"}, headers=headers)
        assert documented_problem(response)["code"] == "tokens_off"
