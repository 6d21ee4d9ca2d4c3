from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from fastapi.testclient import TestClient

from catalog.database import Database
from catalog.errors import RepoNotFound
from catalog.spaces import repository as spaces
from catalog.spaces.repository import BaseMeasurement
from catalog.tables import JobState
from tests.support import catalog as entries
from tests.support.api import refresh
from tests.support.catalog import SPACE
from tests.support.problem_documents import documented_problem
from tests.support.reindexes import end_job, list_jobs, make_ready, measure_job, start_reindex

REINDEXES = "/v1/admin/reindexes"


def put(database: Database) -> None:
    for number in range(3):
        entries.put(database, f"a/m{number}", [1, number])


def ready(database: Database, space=SPACE, failing: bool = False) -> int:
    put(database)
    reindex_id = start_reindex(database, space=space)
    first, *others = list_jobs(database, reindex_id)
    for number, job in enumerate(others):
        measure_job(database, job, [-number, 1], space)
    if failing:
        end_job(database, first, JobState.FAILED, RepoNotFound.code)
    else:
        measure_job(database, first, [-5, 1], space)
    make_ready(database, reindex_id)
    return reindex_id


@pytest.mark.parametrize(
    ("body", "selection"),
    [
        ({"all": True}, {"all": True}),
        ({"base": "org/base"}, {"base": "org/base"}),
        ({"state": "failed"}, {"state": "failed"}),
        ({"outdated": True}, {"outdated": True}),
    ],
)
def test_new_reindex_waits_for_a_worker(api: TestClient, body: dict, selection: dict):
    response = api.post("/v1/admin/reindexes", json=body)
    assert response.status_code == 202
    created = response.json()
    assert (created["selection"], created["state"], created["stage"]) == (selection, "running", "queueing")
    shown = api.get(f"{REINDEXES}/{created['id']}").json()
    assert shown == created | {"jobs": dict.fromkeys(JobState, 0), "failures": [], "missing_artifacts": []}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "invalid_input"),
        ({"all": True, "outdated": True}, 422, "invalid_input"),
        ({"state": "removed"}, 422, "invalid_input"),
        ({"base": "no slash"}, 422, "invalid_repo_id"),
        ({"space": "0" * 64}, 404, "space_not_found"),
        ({"base": "a\0"}, 422, "invalid_input"),
    ],
    ids=str,
)
def test_invalid_selection_is_rejected(api: TestClient, body: dict, status: int, code: str):
    response = api.post("/v1/admin/reindexes", json=body)
    assert (response.status_code, documented_problem(response)["code"]) == (status, code)


def test_second_active_reindex_returns_409(api: TestClient):
    api.post("/v1/admin/reindexes", json={"all": True})
    response = api.post("/v1/admin/reindexes", json={"all": True})
    assert (response.status_code, documented_problem(response)["code"]) == (409, "reindex_active")


def test_reindex_shows_its_progress_and_failures(api: TestClient, database: Database):
    reindex_id = ready(database, failing=True)
    reindex = api.get(f"{REINDEXES}/{reindex_id}").json()
    assert (reindex["state"], reindex["total"], reindex["queued"], reindex["backfilled"]) == ("ready", 3, 3, 1)
    assert (reindex["jobs"]["done"], reindex["jobs"]["failed"]) == (2, 1)
    assert reindex["failures"] == [{"code": "repo_not_found", "count": 1, "repo_ids": ["a/m0"]}]
    assert reindex["contract"][0]["encoder_version"] == "1"


def test_drift_is_reported_per_space(api: TestClient, database: Database):
    report = api.get(f"{REINDEXES}/{ready(database)}/drift").json()
    [pair] = report["spaces"]
    assert (report["final"], pair["old"], pair["lost_models"]) == (True, SPACE.key, {"count": 0, "repo_ids": []})
    assert (pair["drift"]["models"], len(pair["drift"]["histogram"])) == (3, 10)


def test_cutover_moves_searches_to_the_new_space_and_rollback_moves_them_back(api: TestClient, database: Database):
    reindex_id = ready(database)
    new_key = dataclasses.replace(SPACE, edition=reindex_id).key

    def searched_key() -> str:
        refresh(api)
        response = api.get("/v1/models/a/m1/neighbors?k=1").json()
        assert len(response["neighbors"]) == 1
        return response["space"]["key"]

    assert searched_key() == SPACE.key
    assert api.post(f"{REINDEXES}/{reindex_id}/cutover", json={}).json()["state"] == "cut_over"
    assert searched_key() == new_key
    assert [space["serving"] for space in api.get("/v1/spaces").json()["spaces"]] == [True, False]
    assert api.post(f"{REINDEXES}/{reindex_id}/rollback", json={}).json()["state"] == "rolled_back"
    assert searched_key() == SPACE.key


def test_model_shows_its_embedding_in_the_serving_space(api: TestClient, database: Database):
    reindex_id = ready(database)
    measurement = BaseMeasurement(np.zeros((1, 2), np.float32), 0.1)
    with database.transaction() as session:
        for space in (SPACE, dataclasses.replace(SPACE, edition=reindex_id)):
            spaces.store_base_measurement(session, space, SPACE.base_repo, SPACE.base_sha, measurement)
    keys = [measurement["space"]["key"] for measurement in api.get("/v1/models/a/m1").json()["measurements"]]
    assert keys == [SPACE.key]


def test_cutover_that_would_lose_models_returns_409_without_force(api: TestClient, database: Database):
    newer = dataclasses.replace(SPACE, encoder_version="2")
    reindex_id = ready(database, newer, failing=True)
    response = api.post(f"{REINDEXES}/{reindex_id}/cutover", json={})
    assert (response.status_code, documented_problem(response)["code"]) == (409, "reindex_incomplete")
    assert "a/m0" in response.json()["detail"]
    assert api.post(f"{REINDEXES}/{reindex_id}/cutover", json={"force": True}).json()["state"] == "cut_over"


def test_cutover_while_models_are_measured_returns_409(api: TestClient, database: Database):
    put(database)
    response = api.post(f"{REINDEXES}/{start_reindex(database)}/cutover", json={"force": True})
    assert (response.status_code, documented_problem(response)["code"]) == (409, "reindex_not_ready")


def test_cancelled_reindex_is_finished(api: TestClient, database: Database):
    reindex_id = ready(database)
    cancelled = api.post(f"{REINDEXES}/{reindex_id}/cancel").json()
    assert (cancelled["state"], cancelled["stage"]) == ("cancelled", "discarding")
    for action in ("cancel", "rollback", "cutover"):
        response = api.post(f"{REINDEXES}/{reindex_id}/{action}", json={})
        assert (response.status_code, documented_problem(response)["code"]) == (409, "reindex_finished")


def test_reindexes_are_listed_in_pages(api: TestClient, database: Database):
    for _ in range(3):
        number = api.post("/v1/admin/reindexes", json={"all": True}).json()["id"]
        api.post(f"{REINDEXES}/{number}/cancel")
    first = api.get(f"{REINDEXES}?limit=2").json()
    rest = api.get(f"{REINDEXES}?limit=2&cursor={first['next_cursor']}").json()
    assert [reindex["id"] for page in (first, rest) for reindex in page["reindexes"]] == [3, 2, 1]


@pytest.mark.parametrize("path", ["", "/drift"])
def test_unknown_reindex_returns_404(api: TestClient, path: str):
    response = api.get(f"{REINDEXES}/7{path}")
    assert (response.status_code, documented_problem(response)["code"]) == (404, "reindex_not_found")
