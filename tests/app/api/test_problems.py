"""Every error is a problem document, and every route documents its errors."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.api.problems import MEDIA_TYPE, Problem
from app.api.services.services import _services
from app.deployment.embedded import EmbeddedServers
from tests.support.outage import server_down
from tests.support.problem_documents import documented_problem, openapi, problem

ANYWHERE = {
    "invalid_input", "internal_error", "database_unavailable", "database_busy", "rate_limited",
    "too_many_at_once",
    "key_required", "key_unknown", "key_expired", "key_revoked", "role_required", "host_not_allowed", "cross_site",
}  # fmt: skip
SEARCH = {
    "model_not_found",
    "space_not_found",
    "not_indexed",
    "no_shift",
    "invalid_repo_id",
    "index_not_loaded",
    "search_busy",
}
EXPRESSION = {
    "invalid_expression", "term_not_found", "task_not_finished", "merge_not_finished", "ambiguous_term", "zero_vector",
    "space_mismatch",
}  # fmt: skip
MERGE = {
    "invalid_repo_id", "model_not_found", "not_indexed", "merge_incompatible", "space_mismatch", "zero_vector",
    "body_too_large",
}  # fmt: skip
CURATION = {"model_not_found", "invalid_repo_id"}
EXPECTED = {
    ("post", "/v1/models"): {
        "invalid_repo_id",
        "invalid_revision",
        "body_too_large",
        "too_many_jobs",
        "invalid_hub_token",
        "hub_tokens_disabled",
        "model_blocked",
    },
    ("get", "/v1/models"): {"invalid_cursor"},
    ("get", "/v1/models/{owner}/{name}"): {"model_not_found", "invalid_repo_id"},
    ("delete", "/v1/models/{owner}/{name}"): {"model_not_found", "invalid_repo_id"},
    ("patch", "/v1/models/{owner}/{name}/team-tags"): CURATION | {"invalid_name", "too_many_tags", "body_too_large"},
    ("put", "/v1/models/{owner}/{name}/note"): CURATION | {"body_too_large"},
    ("delete", "/v1/models/{owner}/{name}/note"): CURATION,
    ("get", "/v1/aliases"): {"invalid_cursor"},
    ("put", "/v1/aliases/{alias}"): CURATION | {"invalid_name", "too_many_aliases", "body_too_large"},
    ("delete", "/v1/aliases/{alias}"): {"alias_not_found", "invalid_name"},
    ("post", "/v1/admin/blocks"): {"invalid_repo_id", "body_too_large"},
    ("get", "/v1/admin/blocks"): {"invalid_cursor"},
    ("delete", "/v1/admin/blocks/{block_id}"): {"block_not_found"},
    ("get", "/v1/admin/quarantine"): {"invalid_cursor"},
    ("delete", "/v1/admin/quarantine/{entry_id}"): {"quarantine_not_found"},
    ("get", "/v1/admin/spaces"): set(),
    ("delete", "/v1/admin/spaces/{key}"): {"space_not_found", "space_serving", "reindex_active"},
    ("get", "/v1/models/{owner}/{name}/neighbors"): SEARCH,
    ("post", "/v1/search"): SEARCH
    | EXPRESSION
    | {
        "space_required",
        "invalid_vector",
        "body_too_large",
    },
    ("post", "/v1/search/batch"): {
        "space_not_found",
        "invalid_repo_id",
        "index_not_loaded",
        "search_busy",
        "body_too_large",
    },
    ("get", "/v1/spaces"): set(),
    ("post", "/v1/vectors"): EXPRESSION
    | {
        "invalid_name",
        "name_taken",
        "too_many_vectors",
        "invalid_vector",
        "not_indexed",
        "no_shift",
        "space_not_found",
        "space_required",
        "body_too_large",
    },
    ("get", "/v1/vectors"): {"invalid_cursor"},
    ("get", "/v1/vectors/{name}"): {"vector_not_found"},
    ("delete", "/v1/vectors/{name}"): {"vector_not_found"},
    ("post", "/v1/tasks"): {
        "invalid_examples",
        "invalid_repo_id",
        "name_taken",
        "space_not_found",
        "base_required",
        "body_too_large",
        "too_many_jobs",
        "too_many_results",
        "archive_quota_exceeded",
    },
    ("get", "/v1/tasks"): {"invalid_cursor"},
    ("get", "/v1/tasks/{task_id}"): {"task_not_found"},
    ("delete", "/v1/tasks/{task_id}"): {"task_not_found"},
    ("get", "/v1/tasks/{task_id}/adapter"): {"task_not_found", "task_not_finished", "archive_not_found"},
    ("get", "/v1/tasks/{task_id}/neighbors"): {
        "task_not_found",
        "task_not_finished",
        "index_not_loaded",
        "search_busy",
    },
    ("post", "/v1/selections"): {
        "task_not_found",
        "task_not_finished",
        "examples_not_kept",
        "body_too_large",
        "too_many_jobs",
        "too_many_results",
    },
    ("get", "/v1/selections"): {"invalid_cursor"},
    ("get", "/v1/selections/{selection_id}"): {"selection_not_found"},
    ("delete", "/v1/selections/{selection_id}"): {"selection_not_found"},
    ("post", "/v1/merges"): MERGE | {"name_taken", "too_many_jobs", "too_many_results", "archive_quota_exceeded"},
    ("post", "/v1/merges/plan"): MERGE | {"index_not_loaded", "search_busy"},
    ("get", "/v1/merges"): {"invalid_cursor"},
    ("get", "/v1/merges/{merge_id}"): {"merge_not_found"},
    ("delete", "/v1/merges/{merge_id}"): {"merge_not_found"},
    ("get", "/v1/merges/{merge_id}/adapter"): {"merge_not_found", "merge_not_finished", "archive_not_found"},
    ("get", "/v1/merges/{merge_id}/neighbors"): {"merge_not_found", "index_not_loaded", "search_busy"},
    ("get", "/v1/jobs"): {"invalid_cursor"},
    ("get", "/v1/jobs/events"): {"invalid_cursor"},
    ("get", "/v1/jobs/{job_id}"): {"job_not_found"},
    ("get", "/v1/jobs/{job_id}/events"): {"invalid_cursor", "job_not_found"},
    ("post", "/v1/jobs/{job_id}/cancel"): {"job_not_found", "job_finished", "not_yours"},
    ("post", "/v1/jobs/{job_id}/retry"): {
        "job_not_found",
        "not_retriable",
        "not_yours",
        "quarantined",
        "hub_token_required",
        "too_many_jobs",
    },
    ("get", "/v1/admin/queues"): set(),
    ("post", "/v1/admin/queues/{name}/pause"): set(),
    ("post", "/v1/admin/queues/{name}/resume"): set(),
    ("get", "/v1/admin/workers"): set(),
    ("post", "/v1/admin/jobs/retry"): {"body_too_large"},
    ("post", "/v1/admin/jobs/{job_id}/retry"): {"job_not_found", "not_retriable", "hub_token_required"},
    ("get", "/v1/admin/models/{owner}/{name}/access"): {"model_not_found", "invalid_repo_id"},
    ("put", "/v1/admin/models/{owner}/{name}/access"): {
        "model_not_found",
        "invalid_repo_id",
        "key_not_found",
        "body_too_large",
    },
    ("delete", "/v1/admin/models/{owner}/{name}/access"): {
        "model_not_found",
        "invalid_repo_id",
        "key_not_found",
        "body_too_large",
    },
    ("post", "/v1/admin/keys"): {"body_too_large"},
    ("get", "/v1/admin/keys"): {"invalid_cursor"},
    ("delete", "/v1/admin/keys/{prefix}"): {"key_not_found"},
    ("get", "/v1/admin/audit"): {"invalid_cursor"},
    ("get", "/v1/admin/sweep"): set(),
    ("post", "/v1/admin/sweep"): set(),
    ("get", "/v1/stats"): set(),
    ("get", "/v1/map"): {"map_not_ready", "space_not_found", "index_not_loaded"},
    ("get", "/v1/clusters"): {"clusters_not_ready", "invalid_cursor", "space_not_found"},
    ("get", "/v1/clusters/runs"): {"invalid_cursor", "space_not_found"},
    ("get", "/v1/clusters/runs/{run_id}"): {"run_not_found"},
    ("get", "/v1/clusters/runs/{run_id}/compare/{other_id}"): {"run_not_found"},
    ("get", "/v1/clusters/{cluster_id}"): {"cluster_not_found"},
    ("get", "/v1/clusters/{cluster_id}/members"): {"cluster_not_found", "invalid_cursor"},
    ("get", "/v1/models/{owner}/{name}/cluster"): {
        "model_not_found",
        "invalid_repo_id",
        "clusters_not_ready",
        "space_not_found",
    },
    ("post", "/v1/admin/crawls"): {"invalid_repo_id", "body_too_large"},
    ("get", "/v1/admin/crawls"): {"invalid_cursor"},
    ("get", "/v1/admin/crawls/{crawl_id}"): {"crawl_not_found"},
    ("post", "/v1/admin/reindexes"): {"space_not_found", "invalid_repo_id", "reindex_active", "body_too_large"},
    ("get", "/v1/admin/reindexes"): {"invalid_cursor"},
    ("get", "/v1/admin/reindexes/{reindex_id}"): {"reindex_not_found"},
    ("get", "/v1/admin/reindexes/{reindex_id}/drift"): {"reindex_not_found"},
    ("post", "/v1/admin/reindexes/{reindex_id}/cutover"): {
        "reindex_not_found",
        "reindex_finished",
        "reindex_not_ready",
        "reindex_incomplete",
        "body_too_large",
    },
    ("post", "/v1/admin/reindexes/{reindex_id}/rollback"): {
        "reindex_not_found",
        "reindex_finished",
        "reindex_incomplete",
        "body_too_large",
    },
    ("post", "/v1/admin/reindexes/{reindex_id}/cancel"): {"reindex_not_found", "reindex_finished"},
    ("post", "/v1/admin/crawls/{crawl_id}/pause"): {
        "crawl_not_found",
        "crawl_finished",
    },
    ("post", "/v1/admin/crawls/{crawl_id}/resume"): {
        "crawl_not_found",
        "crawl_finished",
    },
    ("post", "/v1/admin/crawls/{crawl_id}/cancel"): {
        "crawl_not_found",
        "crawl_finished",
    },
    ("get", "/v1/models/{owner}/{name}/revisions"): {"model_not_found", "invalid_repo_id", "invalid_cursor"},
    ("post", "/v1/webhooks/hub"): {"webhook_disabled", "invalid_webhook_secret", "body_too_large"},
    ("post", "/v1/admin/clusters/runs"): {"space_not_found", "body_too_large"},
}


@pytest.fixture
def schema() -> dict[str, Any]:
    return openapi()


def errors_of(route: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {status: response for status, response in route["responses"].items() if int(status) >= 400}


def test_openapi_document_is_served(api: TestClient):
    assert api.get("/openapi.json").json() == openapi()


def test_every_route_is_in_the_table_of_this_test(schema: dict[str, Any]):
    routes = {(method, path) for path, methods in schema["paths"].items() for method in methods}
    assert routes - {("get", "/healthz"), ("get", "/readyz")} == set(EXPECTED)


@pytest.mark.parametrize(("method", "path"), EXPECTED)
def test_route_documents_its_error_codes(schema: dict[str, Any], method: str, path: str):
    descriptions = (error["description"] for error in errors_of(schema["paths"][path][method]).values())
    documented = {code.strip("` ") for description in descriptions for code in description.split(",")}
    assert documented == EXPECTED[method, path] | ANYWHERE


@pytest.mark.parametrize(("method", "path"), EXPECTED)
def test_route_documents_its_errors_as_problem_documents(schema: dict[str, Any], method: str, path: str):
    for error in errors_of(schema["paths"][path][method]).values():
        assert error["content"] == {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}


def test_submission_documents_both_statuses(schema: dict[str, Any]):
    responses = schema["paths"]["/v1/models"]["post"]["responses"]
    for status in ("200", "202"):
        assert responses[status]["content"]["application/json"]["schema"]["$ref"].endswith("/Job")


def test_validation_errors_of_fastapi_are_not_documented(schema: dict[str, Any]):
    assert "ValidationError" not in str(schema)


def test_every_reference_in_openapi_is_defined(schema: dict[str, Any]):
    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            reference = {node["$ref"]} if "$ref" in node else set()
            return reference.union(*(references(value) for value in node.values()))
        return set().union(*(references(value) for value in node)) if isinstance(node, list) else set()

    defined = {f"#/components/schemas/{name}" for name in schema["components"]["schemas"]}
    assert references(schema) <= defined


def test_home_page_redirects_to_the_map(api: TestClient):
    response = api.get("/")
    assert (response.status_code, response.url.path) == (200, "/map")
    assert api.get("/docs").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing/here", 404, "not_found"),
        ("GET", "/v1/models/only-one-part", 404, "not_found"),
        ("PUT", "/v1/models", 405, "method_not_allowed"),
        ("PUT", "/v1/models/a/b", 405, "method_not_allowed"),
    ],
)
def test_unknown_route_returns_a_problem(api: TestClient, method: str, path: str, status: int, code: str):
    response = api.request(method, path)
    assert response.status_code == status
    assert problem(response)["code"] == code


def test_method_not_allowed_has_an_allow_header(api: TestClient):
    assert "GET" in api.delete("/v1/jobs").headers["Allow"]


def test_deeply_nested_body_is_rejected(api: TestClient):
    response = api.post("/v1/tasks", content=b"[" * 9_000, headers={"Content-Type": "application/json"})
    assert documented_problem(response)["code"] == "invalid_input"


def test_unexpected_error_reveals_no_details(api: TestClient, caplog: pytest.LogCaptureFixture):
    def broken() -> None:
        raise RuntimeError("the password is swordfish")

    api.app.dependency_overrides[_services] = broken
    caplog.set_level(logging.ERROR)
    client = TestClient(api.app, "http://localhost", raise_server_exceptions=False)

    response = client.get("/v1/stats")

    assert response.status_code == 500
    assert documented_problem(response)["code"] == "internal_error"
    for secret in ("swordfish", "RuntimeError", "Traceback", ".py"):
        assert secret not in response.text
    assert "swordfish" in caplog.text  # but it is logged


def test_unavailable_database_returns_503(api: TestClient, servers: EmbeddedServers):
    with server_down(servers.postgres):
        paths = ("models", "models/a/b", "models/a/b/neighbors", "jobs", "jobs/1", "spaces", "stats")
        responses = [api.get(f"/v1/{path}") for path in paths]
        responses.append(api.post("/v1/models", json={"repo_id": "a/b"}))
        responses.append(api.post("/v1/search", json={"vector": [1]}))
    assert {response.status_code for response in responses} == {503}
    assert {documented_problem(response)["code"] for response in responses} == {"database_unavailable"}
    assert api.get("/v1/stats").status_code == 200


def test_problem_document_matches_its_schema(api: TestClient):
    assert Problem.model_validate(api.get("/v1/jobs/1").json()).code == "job_not_found"
