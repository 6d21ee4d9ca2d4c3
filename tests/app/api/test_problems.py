"""Every error is a problem document, and every route says which ones it has."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.api.problems import MEDIA_TYPE, Problem
from app.api.services.services import _services
from app.deployment.embedded import EmbeddedServers
from tests.support.outage import away
from tests.support.problem_documents import documented_problem, openapi, problem

ANYWHERE = {"invalid_input", "internal_error", "database_unavailable"}
SEARCH = {"model_not_found", "space_not_found", "not_indexed", "no_shift", "invalid_repo_id"}
SEARCH |= {"geometry_not_fitted", "index_not_loaded"}
EXPRESSION = {
    "invalid_expression", "term_not_found", "task_not_done", "merge_not_done", "ambiguous_term", "nothing_left",
    "space_mismatch",
}  # fmt: skip
MERGE = {
    "invalid_repo_id", "model_not_found", "not_indexed", "merge_incompatible", "space_mismatch", "nothing_left",
    "body_too_large",
}  # fmt: skip
ADMIN = {"admin_only", "admin_key_required"}
EXPECTED = {
    ("post", "/v1/models"): {
        "invalid_repo_id",
        "invalid_revision",
        "body_too_large",
        "too_many_jobs",
        "key_required",
        "token_malformed",
        "tokens_off",
    },
    ("get", "/v1/models"): {"invalid_cursor"},
    ("get", "/v1/models/{owner}/{name}"): {"model_not_found", "invalid_repo_id"},
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
        "geometry_not_fitted",
        "invalid_repo_id",
        "index_not_loaded",
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
        "body_too_large",
        "too_many_jobs",
    },
    ("get", "/v1/tasks"): {"invalid_cursor"},
    ("get", "/v1/tasks/{task_id}"): {"task_not_found"},
    ("delete", "/v1/tasks/{task_id}"): {"task_not_found"},
    ("get", "/v1/tasks/{task_id}/adapter"): {"task_not_found", "task_not_done", "archive_not_found"},
    ("get", "/v1/tasks/{task_id}/neighbors"): {
        "task_not_found",
        "task_not_done",
        "geometry_not_fitted",
        "index_not_loaded",
    },
    ("post", "/v1/selections"): {
        "task_not_found",
        "task_not_done",
        "examples_not_kept",
        "body_too_large",
        "too_many_jobs",
    },
    ("get", "/v1/selections"): {"invalid_cursor"},
    ("get", "/v1/selections/{selection_id}"): {"selection_not_found"},
    ("delete", "/v1/selections/{selection_id}"): {"selection_not_found"},
    ("post", "/v1/merges"): MERGE | {"name_taken", "too_many_jobs"},
    ("post", "/v1/merges/plan"): MERGE | {"geometry_not_fitted", "index_not_loaded"},
    ("get", "/v1/merges"): {"invalid_cursor"},
    ("get", "/v1/merges/{merge_id}"): {"merge_not_found"},
    ("delete", "/v1/merges/{merge_id}"): {"merge_not_found"},
    ("get", "/v1/merges/{merge_id}/adapter"): {"merge_not_found", "merge_not_done", "archive_not_found"},
    ("get", "/v1/merges/{merge_id}/neighbors"): {"merge_not_found", "geometry_not_fitted", "index_not_loaded"},
    ("get", "/v1/jobs"): {"invalid_cursor"},
    ("get", "/v1/jobs/events"): {"invalid_cursor"},
    ("get", "/v1/jobs/{job_id}"): {"job_not_found"},
    ("get", "/v1/jobs/{job_id}/events"): {"invalid_cursor", "job_not_found"},
    ("post", "/v1/jobs/{job_id}/cancel"): {"job_not_found", "job_over"},
    ("post", "/v1/jobs/{job_id}/retry"): {
        "job_not_found",
        "not_retriable",
        "quarantined",
        "token_required",
        "too_many_jobs",
    },
    ("get", "/v1/admin/queues"): ADMIN,
    ("post", "/v1/admin/queues/{name}/pause"): ADMIN,
    ("post", "/v1/admin/queues/{name}/resume"): ADMIN,
    ("get", "/v1/admin/workers"): ADMIN,
    ("post", "/v1/admin/jobs/retry"): ADMIN | {"body_too_large"},
    ("post", "/v1/admin/jobs/{job_id}/retry"): ADMIN | {"job_not_found", "not_retriable", "token_required"},
    ("get", "/v1/admin/models/{owner}/{name}/access"): ADMIN | {"model_not_found", "invalid_repo_id"},
    ("put", "/v1/admin/models/{owner}/{name}/access"): ADMIN | {"model_not_found", "invalid_repo_id", "body_too_large"},
    ("delete", "/v1/admin/models/{owner}/{name}/access"): ADMIN
    | {"model_not_found", "invalid_repo_id", "body_too_large"},
    ("get", "/v1/stats"): set(),
    ("get", "/v1/map"): {"not_mapped", "space_not_found", "index_not_loaded"},
    ("get", "/v1/clusters"): {"not_clustered", "space_not_found"},
    ("get", "/v1/clusters/runs"): {"invalid_cursor", "space_not_found"},
    ("get", "/v1/clusters/runs/{run_id}"): {"run_not_found"},
    ("get", "/v1/clusters/runs/{run_id}/compare/{other_id}"): {"run_not_found"},
    ("get", "/v1/clusters/{cluster_id}"): {"cluster_not_found"},
    ("get", "/v1/clusters/{cluster_id}/members"): {"cluster_not_found", "invalid_cursor"},
    ("get", "/v1/models/{owner}/{name}/cluster"): {
        "model_not_found",
        "invalid_repo_id",
        "not_clustered",
        "space_not_found",
    },
    ("post", "/v1/admin/crawls"): {"invalid_repo_id", "admin_only", "admin_key_required", "body_too_large"},
    ("get", "/v1/admin/crawls"): {"invalid_cursor", "admin_only", "admin_key_required"},
    ("get", "/v1/admin/crawls/{crawl_id}"): {"crawl_not_found", "admin_only", "admin_key_required"},
    ("post", "/v1/admin/reindex"): ADMIN | {"space_not_found", "invalid_repo_id", "reindex_active", "body_too_large"},
    ("get", "/v1/admin/reindexes"): ADMIN | {"invalid_cursor"},
    ("get", "/v1/admin/reindexes/{reindex_id}"): ADMIN | {"reindex_not_found"},
    ("get", "/v1/admin/reindexes/{reindex_id}/drift"): ADMIN | {"reindex_not_found"},
    ("post", "/v1/admin/reindexes/{reindex_id}/switch"): ADMIN
    | {"reindex_not_found", "reindex_over", "reindex_not_ready", "reindex_incomplete", "body_too_large"},
    ("post", "/v1/admin/reindexes/{reindex_id}/rollback"): ADMIN
    | {"reindex_not_found", "reindex_over", "reindex_incomplete", "body_too_large"},
    ("post", "/v1/admin/reindexes/{reindex_id}/cancel"): ADMIN | {"reindex_not_found", "reindex_over"},
    ("post", "/v1/admin/crawls/{crawl_id}/pause"): {
        "crawl_not_found",
        "crawl_over",
        "admin_only",
        "admin_key_required",
    },
    ("post", "/v1/admin/crawls/{crawl_id}/resume"): {
        "crawl_not_found",
        "crawl_over",
        "admin_only",
        "admin_key_required",
    },
    ("post", "/v1/admin/crawls/{crawl_id}/cancel"): {
        "crawl_not_found",
        "crawl_over",
        "admin_only",
        "admin_key_required",
    },
    ("get", "/v1/models/{owner}/{name}/revisions"): {"model_not_found", "invalid_repo_id", "invalid_cursor"},
    ("post", "/v1/webhooks/hub"): {"webhook_off", "webhook_secret_wrong", "body_too_large"},
    ("post", "/v1/admin/clusters"): {"space_not_found", "admin_only", "admin_key_required", "body_too_large"},
}

GRANT = ("put", "/v1/admin/models/{owner}/{name}/access")  # the key is in the body


@pytest.fixture
def schema() -> dict[str, Any]:
    return openapi()


def errors_of(route: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {status: response for status, response in route["responses"].items() if int(status) >= 400}


def test_the_documentation_is_served(api: TestClient):
    assert api.get("/openapi.json").json() == openapi()


def test_every_route_is_in_the_table_of_this_test(schema: dict[str, Any]):
    routes = {(method, path) for path, methods in schema["paths"].items() for method in methods}
    assert routes - {("get", "/healthz"), ("get", "/readyz")} == set(EXPECTED)


@pytest.mark.parametrize(("method", "path"), EXPECTED)
def test_a_route_documents_the_codes_that_it_can_answer_with(schema: dict[str, Any], method: str, path: str):
    descriptions = (error["description"] for error in errors_of(schema["paths"][path][method]).values())
    documented = {code.strip("` ") for description in descriptions for code in description.split(",")}
    assert documented - {"weak_key"} == EXPECTED[method, path] | ANYWHERE


@pytest.mark.parametrize(("method", "path"), EXPECTED)
def test_a_route_that_reads_keys_documents_that_one_may_be_too_short(schema: dict[str, Any], method: str, path: str):
    route = schema["paths"][path][method]
    reads_keys = any("SubmitterKey" in each for each in route.get("security", ())) or (method, path) == GRANT
    assert ("`weak_key`" in route["responses"]["422"]["description"]) is reads_keys


@pytest.mark.parametrize(("method", "path"), EXPECTED)
def test_a_route_documents_its_errors_as_problem_documents(schema: dict[str, Any], method: str, path: str):
    for error in errors_of(schema["paths"][path][method]).values():
        assert error["content"] == {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}


def test_what_a_submission_answers_is_documented_for_both_statuses(schema: dict[str, Any]):
    responses = schema["paths"]["/v1/models"]["post"]["responses"]
    for status in ("200", "202"):
        assert responses[status]["content"]["application/json"]["schema"]["$ref"].endswith("/Job")


def test_the_frameworks_own_errors_are_nowhere_documented(schema: dict[str, Any]):
    assert "ValidationError" not in str(schema)


def test_every_reference_of_the_documentation_leads_somewhere(schema: dict[str, Any]):
    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            own = {node["$ref"]} if "$ref" in node else set()
            return own.union(*(references(value) for value in node.values()))
        return set().union(*(references(value) for value in node)) if isinstance(node, list) else set()

    defined = {f"#/components/schemas/{name}" for name in schema["components"]["schemas"]}
    assert references(schema) <= defined


def test_the_home_page_leads_to_the_map(api: TestClient):
    response = api.get("/")
    assert (response.status_code, response.url.path) == (200, "/map")
    assert api.get("/docs").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing/here", 404, "not_found"),
        ("GET", "/v1/models/only-one-part", 404, "not_found"),
        ("PUT", "/v1/models", 405, "method_not_allowed"),
        ("DELETE", "/v1/models/a/b", 405, "method_not_allowed"),
    ],
)
def test_what_is_no_route_is_a_problem_too(api: TestClient, method: str, path: str, status: int, code: str):
    response = api.request(method, path)
    assert response.status_code == status
    assert problem(response)["code"] == code


def test_a_method_that_is_not_allowed_is_told_which_ones_are(api: TestClient):
    assert "GET" in api.delete("/v1/jobs").headers["Allow"]


def test_a_body_nested_without_end_is_refused(api: TestClient):
    response = api.post("/v1/search", content=b"[" * 100_000, headers={"Content-Type": "application/json"})
    assert documented_problem(response)["code"] == "invalid_input"


def test_a_failure_without_a_name_tells_nothing_of_the_inside(api: TestClient, caplog: pytest.LogCaptureFixture):
    def broken() -> None:
        raise RuntimeError("the password is swordfish")

    api.app.dependency_overrides[_services] = broken
    caplog.set_level(logging.ERROR)
    quiet = TestClient(api.app, raise_server_exceptions=False)

    response = quiet.get("/v1/stats")

    assert response.status_code == 500
    assert documented_problem(response)["code"] == "internal_error"
    for secret in ("swordfish", "RuntimeError", "Traceback", ".py"):
        assert secret not in response.text
    assert "swordfish" in caplog.text  # the log is where it belongs


def test_a_database_that_is_away_is_a_problem_of_its_own(api: TestClient, servers: EmbeddedServers):
    with away(servers.postgres):
        paths = ("models", "models/a/b", "models/a/b/neighbors", "jobs", "jobs/1", "spaces", "stats")
        responses = [api.get(f"/v1/{path}") for path in paths]
        responses.append(api.post("/v1/models", json={"repo_id": "a/b"}))
        responses.append(api.post("/v1/search", json={"vector": [1]}))
    assert {response.status_code for response in responses} == {503}
    assert {documented_problem(response)["code"] for response in responses} == {"database_unavailable"}
    assert api.get("/v1/stats").status_code == 200


def test_an_example_of_a_problem_is_one(api: TestClient):
    assert Problem.model_validate(api.get("/v1/jobs/1").json()).code == "job_not_found"
