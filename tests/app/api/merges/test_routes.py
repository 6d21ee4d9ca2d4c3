from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from catalog.database import Database
from catalog.jobs.repository import jobs
from tests.support import catalog as entries
from tests.support.api import refresh
from tests.support.catalog import SPACE
from tests.support.keys import AS_ANYBODY, add_key
from tests.support.merge_requests import METRICS, finish_merge
from tests.support.problem_documents import documented_problem

KEY = "the key of a single user"
MINE = {"X-API-Key": KEY}


@pytest.fixture(autouse=True)
def own_key(database: Database) -> None:
    add_key(database, KEY)


PARTS = ["owner/law", "owner/math"]


@pytest.fixture
def models(database: Database, api: TestClient) -> Database:
    for number, name in enumerate(("law", "math", "code")):
        entries.put(database, f"owner/{name}", np.eye(3)[number])
    entries.put(database, "owner/mix", [1, 1, 0.2])
    refresh(api)
    return database


def create_merge(api: TestClient, headers: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    response = api.post("/v1/merges", json={"models": PARTS, **fields}, headers=headers)
    assert response.status_code == 202, response.text
    return response.json()


def test_plan_returns_the_prediction_and_runs_nothing(models: Database, api: TestClient):
    body = {"models": PARTS, "weights": [1, 0.5], "method": "ties", "density": 0.3, "k": 1}
    response = api.post("/v1/merges/plan", json=body)
    assert response.status_code == 200, response.text
    plan = response.json()
    assert (plan["base"], plan["method"], plan["settings"]) == (SPACE.base_repo, "ties", {"density": 0.3})
    assert (plan["prediction"], plan["rank"]) == ([1.0, 0.5, 0.0], None)
    assert plan["pairs"] == [{"models": PARTS, "cosine": 0.0}]
    assert [note["code"] for note in plan["notes"]] == ["unknown_ranks", "cross_terms", "averages"]
    assert [neighbor["repo_id"] for neighbor in plan["neighbors"]["neighbors"]] == ["owner/mix"]
    with models.transaction() as session:
        assert jobs.list_page(session) == []


def test_merge_is_created_and_compared_with_the_prediction(models: Database, api: TestClient):
    merge = create_merge(api, name="both")
    assert (merge["state"], merge["comparisons"], merge["method"]) == ("queued", None, "cat")
    assert [part["weight"] for part in merge["parts"]] == [1.0, 1.0]

    finish_merge(models, merge, [1, 0.9, 0.1])

    done = api.get(f"/v1/merges/{merge['id']}").json()
    assert (done["state"], done["rank"], done["bytes"]) == ("done", 16, 1000)
    comparison = METRICS["spaces"][SPACE.feature]
    assert done["comparisons"] == [{"feature": SPACE.feature, **comparison}]
    assert [part["cosine"] for part in done["parts"]] == [0.6, 0.7]
    assert [part["predicted_cosine"] for part in done["parts"]] == pytest.approx([0.7071, 0.7071], abs=1e-4)
    neighbors = api.get(f"/v1/merges/{merge['id']}/neighbors", params={"k": 1}).json()
    for vector in ("predicted", "measured"):
        assert neighbors[vector]["neighbors"][0]["repo_id"] == "owner/mix"


def test_adapter_can_be_downloaded_once_the_merge_is_done(models: Database, api: TestClient):
    merge = create_merge(api, name="both")
    path = f"/v1/merges/{merge['id']}/adapter"
    assert documented_problem(api.get(path))["code"] == "merge_not_finished"
    finish_merge(models, merge, [1, 1, 0], b"eight by")
    response = api.get(path)
    assert (response.content, response.headers["content-length"]) == (b"eight by", "8")
    assert 'filename="merge-both.zip"' in response.headers["content-disposition"]


def test_finished_merge_is_a_term_of_expressions(models: Database, api: TestClient):
    merge = create_merge(api, name="both")
    query = {"expression": "merge:both - owner/law", "include_low_confidence": True}
    assert documented_problem(api.post("/v1/search", json=query))["code"] == "merge_not_finished"
    finish_merge(models, merge, [1, 1, 0])
    assert api.post("/v1/search", json=query).json()["neighbors"][0]["repo_id"] == "owner/math"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weights": [1]}, "as many numbers"),
        ({"weights": [1, 0]}, "must not be 0"),
        ({"weights": [1, 101]}, "less than or equal to 100"),
        ({"models": ["owner/law", "owner/law"]}, "occurs twice"),
        ({"models": ["owner/law"]}, "at least 2"),
        ({"method": "mean"}, "match pattern"),
        ({"density": 0.5}, "no meaning for the method cat"),
        ({"rank": 8}, "no meaning for the method cat"),
        ({"seed": 8, "method": "ties"}, "no meaning for the method ties"),
        ({"density": 0, "method": "ties"}, "greater than or equal to 0.01"),
    ],
)
def test_inconsistent_request_returns_422(models: Database, api: TestClient, fields: dict[str, Any], message: str):
    problem = documented_problem(api.post("/v1/merges", json={"models": PARTS, **fields}))
    assert (problem["code"], message in problem["detail"]) == ("invalid_input", True), problem["detail"]


def test_incompatible_parts_return_422(models: Database, api: TestClient):
    with models.transaction() as session:
        entries.put_revision(session, "owner/law", base="other/base")
    for path in ("/v1/merges", "/v1/merges/plan"):
        problem = documented_problem(api.post(path, json={"models": PARTS}))
        assert (problem["status"], problem["code"]) == (422, "merge_incompatible")


def test_job_of_a_merge_can_be_read_and_cancelled(models: Database, api: TestClient):
    merge = create_merge(api)
    job = api.get(f"/v1/jobs/{merge['job']}").json()
    assert job["repo_id"] == f"merge:{merge['id']}@{SPACE.base_repo}"
    assert api.post(f"/v1/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    assert api.get(f"/v1/merges/{merge['id']}").json()["state"] == "cancelled"


def test_merges_are_listed_in_pages_newest_first(models: Database, api: TestClient):
    ids = [create_merge(api)["id"] for _ in range(3)]
    first = api.get("/v1/merges", params={"limit": 2}).json()
    rest = api.get("/v1/merges", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [merge["id"] for page in (first, rest) for merge in page["merges"]] == ids[::-1]


def test_deleted_merge_returns_404(models: Database, api: TestClient):
    merge = create_merge(api)
    assert api.delete(f"/v1/merges/{merge['id']}").json()["id"] == merge["id"]
    assert documented_problem(api.get(f"/v1/merges/{merge['id']}"))["code"] == "merge_not_found"


def test_merge_of_a_key_returns_404_without_that_key(models: Database, api: TestClient):
    merge = create_merge(api, MINE)
    for path in (f"/v1/merges/{merge['id']}", f"/v1/jobs/{merge['job']}"):
        assert [api.get(path, headers=headers).status_code for headers in (AS_ANYBODY, MINE)] == [404, 200]
