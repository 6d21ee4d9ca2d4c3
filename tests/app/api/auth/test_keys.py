"""Weak API keys are rejected, and empty secrets count as not set."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from app.main import create_app
from catalog.auth.viewer import MIN_KEY_LENGTH, hash_key
from catalog.database import Database
from catalog.settings import Settings, settings
from tests.support import catalog as entries
from tests.support.problem_documents import documented_problem, openapi

SHORT = "s" * (MIN_KEY_LENGTH - 1)
LONG = "l" * MIN_KEY_LENGTH
ADMIN_KEY = "a" * MIN_KEY_LENGTH
SECRET = "hidden-owner/hidden-name"
REMOTE = ("203.0.113.9", 5555)  # not this machine
KEY_ROUTES = [
    (method, path)
    for path, methods in openapi()["paths"].items()
    for method, route in methods.items()
    if any("SubmitterKey" in scheme for scheme in route.get("security", ()))
]


@contextmanager
def remote_client(conf: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(conf.model_copy(update={"feed_interval": 3600})), client=REMOTE) as client:
        yield client


def test_most_routes_use_api_keys():
    assert {("post", "/v1/models"), ("post", "/v1/vectors"), ("get", "/v1/jobs/events")} < set(KEY_ROUTES)


@pytest.mark.parametrize(("method", "path"), KEY_ROUTES)
def test_short_api_key_returns_weak_key(api: TestClient, method: str, path: str):
    response = api.request(method, re.sub(r"\{\w+\}", "1", path), headers={"X-API-Key": SHORT})
    problem = documented_problem(response)
    assert (response.status_code, problem["code"]) == (422, "weak_key")
    assert f"at least {MIN_KEY_LENGTH} characters" in problem["detail"]
    assert SHORT not in response.text


def test_hub_token_with_a_short_key_is_rejected(api: TestClient):
    headers = {"X-API-Key": SHORT, "X-Hub-Token": "hf_me"}
    response = api.post("/v1/models", json={"repo_id": SECRET}, headers=headers)
    assert documented_problem(response)["code"] == "weak_key"
    assert api.get("/v1/jobs").json()["jobs"] == []


def test_key_of_minimum_length_is_accepted(api: TestClient):
    response = api.post("/v1/models", json={"repo_id": "a/b"}, headers={"X-API-Key": LONG})
    assert response.status_code == 202


def test_empty_key_is_ignored(api: TestClient):
    assert api.get("/v1/models", headers={"X-API-Key": ""}).status_code == 200


@pytest.fixture
def admin_api(api: TestClient, database: Database) -> TestClient:
    """An admin's client of an API with a private model."""
    entries.put_private(database, SECRET, [1, 0, 0], hash_key(LONG))
    api.app.state.settings = api.app.state.settings.model_copy(update={"admin_api_key": SecretStr(ADMIN_KEY)})
    api.headers["X-Admin-Key"] = ADMIN_KEY
    return api


def test_granting_access_to_a_short_key_is_rejected(admin_api: TestClient):
    path = f"/v1/admin/models/{SECRET}/access"
    before = admin_api.get(path).json()
    response = admin_api.put(path, json={"key": SHORT})
    assert documented_problem(response)["code"] == "weak_key"
    assert admin_api.get(path).json() == before


def test_access_of_a_short_key_can_be_revoked(admin_api: TestClient):
    path = f"/v1/admin/models/{SECRET}/access"
    admin_api.put(path, json={"submitter": hash_key(SHORT)})
    remaining = admin_api.request("DELETE", path, json={"key": SHORT}).json()["access"]
    assert [access["submitter"] for access in remaining] == [hash_key(LONG)]


def test_short_key_is_rejected_even_if_its_hash_has_access(admin_api: TestClient):
    admin_api.put(f"/v1/admin/models/{SECRET}/access", json={"submitter": hash_key(SHORT)})
    del admin_api.headers["X-Admin-Key"]
    response = admin_api.get(f"/v1/models/{SECRET}", headers={"X-API-Key": SHORT})
    assert documented_problem(response)["code"] == "weak_key"


def from_environment(value: str) -> Callable[[pytest.MonkeyPatch], Settings]:
    def read(monkeypatch: pytest.MonkeyPatch) -> Settings:
        monkeypatch.setenv("ADMIN_API_KEY", value)
        return Settings()

    return read


def set_afterwards(_: pytest.MonkeyPatch) -> Settings:
    return settings().model_copy(update={"admin_api_key": SecretStr("")})


@pytest.mark.parametrize("headers", [{}, {"X-Admin-Key": ""}, {"X-Admin-Key": " "}])
@pytest.mark.parametrize("read", [from_environment(""), from_environment(" \n"), set_afterwards])
def test_empty_admin_key_grants_no_admin_access(
    database: Database, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], read: Callable
):
    entries.put_private(database, SECRET, [1, 0, 0], hash_key(LONG))
    with remote_client(read(monkeypatch)) as api:
        response = api.get("/v1/admin/queues", headers=headers)
        assert documented_problem(response)["code"] in ("admin_only", "admin_key_required")
        assert api.get("/v1/models", headers=headers).json()["models"] == []


def test_trailing_newline_of_the_admin_key_is_stripped(database: Database, monkeypatch: pytest.MonkeyPatch):
    with remote_client(from_environment(f"{ADMIN_KEY}\n")(monkeypatch)) as api:
        assert api.get("/v1/admin/queues", headers={"X-Admin-Key": ADMIN_KEY}).status_code == 200


def test_empty_webhook_secret_disables_the_webhook(database: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DELTADEX_WEBHOOK_SECRET", "")
    with remote_client(Settings()) as api:
        repo = {"type": "model", "name": "a/b", "private": False}
        delivery = {"event": {"action": "update", "scope": "repo"}, "repo": repo}
        response = api.post("/v1/webhooks/hub", json=delivery, headers={"X-Webhook-Secret": ""})
        assert documented_problem(response)["code"] == "webhook_disabled"


def test_empty_token_key_disables_hub_tokens(database: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DELTADEX_TOKEN_KEY", "  ")
    with remote_client(Settings()) as api:
        headers = {"X-API-Key": LONG, "X-Hub-Token": "hf_me"}
        response = api.post("/v1/models", json={"repo_id": "a/b"}, headers=headers)
        assert documented_problem(response)["code"] == "hub_tokens_disabled"
