from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from catalog.settings import Settings
from tests.support.problem_documents import openapi

KEYS: list[dict[str, list[str]]] = [{"APIKeyHeader": []}, {"HTTPBearer": []}]
WITH_HUB_TOKEN = [{**key, "HubToken": []} for key in KEYS]


def security_of(method: str, path: str, document: dict[str, Any] | None = None) -> list[dict[str, list[str]]]:
    return (document or openapi())["paths"][path][method]["security"]


@pytest.mark.parametrize(
    ("method", "path", "security"),
    [
        ("get", "/healthz", [{}, *KEYS]),
        ("get", "/v1/models", [{}, *KEYS]),
        ("delete", "/v1/vectors/{name}", KEYS),
        ("get", "/v1/admin/keys", KEYS),
        ("post", "/v1/models", [*KEYS, *WITH_HUB_TOKEN]),
        ("post", "/v1/webhooks/hub", [{"WebhookSecret": []}]),
    ],
)
def test_route_documents_the_keys_that_it_takes(method: str, path: str, security: list[dict[str, list[str]]]):
    assert security_of(method, path) == security


def test_routes_for_readers_require_a_key_without_anonymous_reading():
    document = create_app(Settings(anonymous_reading=False)).openapi()
    assert security_of("get", "/v1/models", document) == KEYS
    assert security_of("get", "/readyz", document) == [{}, *KEYS]


def test_errors_that_pass_document_when_to_retry():
    responses = openapi()["paths"]["/v1/models"]["get"]["responses"]
    assert all("Retry-After" in responses[status]["headers"] for status in ("429", "503"))
    assert "WWW-Authenticate" in responses["401"]["headers"]


@pytest.mark.parametrize(
    ("path", "methods"),
    [("/v1/vectors", "GET, POST"), ("/v1/admin/models/a/b/access", "DELETE, GET, PUT"), ("/v1/merges/plan", "POST")],
)
def test_allow_header_lists_all_methods_of_the_path(api: TestClient, path: str, methods: str):
    assert api.request("OPTIONS", path).headers["Allow"] == methods
