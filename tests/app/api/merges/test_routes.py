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
from tests.support.merge_requests import FIGURES, finish
from tests.support.problem_documents import documented_problem

MINE = {"X-API-Key": "mine and nobody else's"}
PARTS = ["owner/law", "owner/math"]


@pytest.fixture
def models(database: Database, api: TestClient) -> Database:
    for number, name in enumerate(("law", "math", "code")):
        entries.put(database, f"owner/{name}", np.eye(3)[number])
    entries.put(database, "owner/mix", [1, 1, 0.2])
    refresh(api)
    return database


def ask(api: TestClient, headers: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    response = api.post("/v1/merges", json={"models": PARTS, **more}, headers=headers)
    assert response.status_code == 202, response.text
    return response.json()


def test_a_plan_tells_what_a_merge_would_be(models: Database, api: TestClient):
    asked = {"models": PARTS, "weights": [1, 0.5], "method": "ties", "density": 0.3, "k": 1}
    response = api.post("/v1/merges/plan", json=asked)
    assert response.status_code == 200, response.text
    found = response.json()
    assert (found["base"], found["method"], found["settings"]) == (SPACE.base_repo, "ties", {"density": 0.3})
    assert (found["prediction"], found["rank"]) == ([1.0, 0.5, 0.0], None)
    assert found["pairs"] == [{"models": PARTS, "cosine": 0.0}]
    assert [each["code"] for each in found["notes"]] == ["unknown", "cross_terms", "averages"]
    assert [each["repo_id"] for each in found["neighbors"]["neighbors"]] == ["owner/mix"]
    with models.transaction() as session:
        assert jobs.page(session) == []


def test_a_merge_is_asked_and_made(models: Database, api: TestClient):
    merge = ask(api, name="both")
    assert (merge["state"], merge["compared"], merge["method"]) == ("queued", None, "cat")
    assert [each["weight"] for each in merge["parts"]] == [1.0, 1.0]

    finish(models, merge, [1, 0.9, 0.1])

    done = api.get(f"/v1/merges/{merge['id']}").json()
    assert (done["state"], done["rank"], done["bytes"]) == ("done", 16, 1000)
    told = FIGURES["spaces"][SPACE.feature]
    assert done["compared"] == [{"feature": SPACE.feature, **told}]
    assert [each["cosine"] for each in done["parts"]] == [0.6, 0.7]
    assert [each["predicted_cosine"] for each in done["parts"]] == pytest.approx([0.7071, 0.7071], abs=1e-4)
    near = api.get(f"/v1/merges/{merge['id']}/neighbors", params={"k": 1}).json()
    assert [near[side]["neighbors"][0]["repo_id"] for side in ("predicted", "made")] == ["owner/mix"] * 2


def test_what_is_made_can_be_downloaded(models: Database, api: TestClient):
    merge = ask(api, name="both")
    place = f"/v1/merges/{merge['id']}/adapter"
    assert documented_problem(api.get(place))["code"] == "merge_not_done"
    finish(models, merge, [1, 1, 0], b"eight by")
    response = api.get(place)
    assert (response.content, response.headers["content-length"]) == (b"eight by", "8")
    assert 'filename="merge-both.zip"' in response.headers["content-disposition"]


def test_a_merge_is_a_term_of_a_sum(models: Database, api: TestClient):
    merge = ask(api, name="both")
    asked = {"expression": "merge:both - owner/law", "unconfident": True}
    assert documented_problem(api.post("/v1/search", json=asked))["code"] == "merge_not_done"
    finish(models, merge, [1, 1, 0])
    assert api.post("/v1/search", json=asked).json()["neighbors"][0]["repo_id"] == "owner/math"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"weights": [1]}, "as many numbers"),
        ({"weights": [1, 0]}, "weight 0"),
        ({"weights": [1, 101]}, "less than or equal to 100"),
        ({"models": ["owner/law", "owner/law"]}, "stands twice"),
        ({"models": ["owner/law"]}, "at least 2"),
        ({"method": "mean"}, "match pattern"),
        ({"density": 0.5}, "no meaning for the method cat"),
        ({"rank": 8}, "no meaning for the method cat"),
        ({"seed": 8, "method": "ties"}, "no meaning for the method ties"),
        ({"density": 0, "method": "ties"}, "greater than or equal to 0.01"),
    ],
)
def test_a_question_that_makes_no_sense_is_told(models: Database, api: TestClient, more: dict[str, Any], said: str):
    problem = documented_problem(api.post("/v1/merges", json={"models": PARTS, **more}))
    assert (problem["code"], said in problem["detail"]) == ("invalid_input", True), problem["detail"]


def test_parts_that_cannot_be_merged_are_a_problem_at_once(models: Database, api: TestClient):
    with models.transaction() as session:
        entries.put_revision(session, "owner/law", base="other/base")
    for path in ("/v1/merges", "/v1/merges/plan"):
        problem = documented_problem(api.post(path, json={"models": PARTS}))
        assert (problem["status"], problem["code"]) == (422, "merge_incompatible")


def test_the_job_of_a_merge_is_shown_as_one(models: Database, api: TestClient):
    merge = ask(api)
    job = api.get(f"/v1/jobs/{merge['job']}").json()
    assert job["repo_id"] == f"merge:{merge['id']}@{SPACE.base_repo}"
    assert api.post(f"/v1/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    assert api.get(f"/v1/merges/{merge['id']}").json()["state"] == "cancelled"


def test_merges_come_in_pages(models: Database, api: TestClient):
    asked = [ask(api)["id"] for _ in range(3)]
    first = api.get("/v1/merges", params={"limit": 2}).json()
    rest = api.get("/v1/merges", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [merge["id"] for page in (first, rest) for merge in page["merges"]] == asked[::-1]


def test_a_deleted_merge_is_gone(models: Database, api: TestClient):
    merge = ask(api)
    assert api.delete(f"/v1/merges/{merge['id']}").json()["id"] == merge["id"]
    assert documented_problem(api.get(f"/v1/merges/{merge['id']}"))["code"] == "merge_not_found"


def test_a_merge_of_a_key_is_seen_with_that_key(models: Database, api: TestClient):
    merge = ask(api, MINE)
    for place in (f"/v1/merges/{merge['id']}", f"/v1/jobs/{merge['job']}"):
        assert [api.get(place, headers=each).status_code for each in ({}, MINE)] == [404, 200]
