from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from catalog.database import Database
from catalog.errors import RepoNotFound
from catalog.spaces import repository as spaces
from catalog.spaces.repository import BaseTable
from catalog.tables import JobState
from tests.support import catalog as entries
from tests.support.api import refresh
from tests.support.catalog import SPACE
from tests.support.problem_documents import documented_problem
from tests.support.reindexes import begin, end, finish, its_jobs, measure

REINDEXES = "/v1/admin/reindexes"

SESAME = "open sesame for admins"


@pytest.fixture
def admin(api: TestClient) -> TestClient:
    """An API that asks for a key, and a client that has it."""
    api.app.state.settings = api.app.state.settings.model_copy(update={"admin_api_key": SecretStr(SESAME)})
    api.headers["X-Admin-Key"] = SESAME
    return api


def put(database: Database) -> None:
    for number in range(3):
        entries.put(database, f"a/m{number}", [1, number])


def ready(database: Database, space=SPACE, failing: bool = False) -> int:
    put(database)
    reindex_id = begin(database, space=space)
    first, *others = its_jobs(database, reindex_id)
    for number, job in enumerate(others):
        measure(database, job, [-number, 1], space)
    if failing:
        end(database, first, JobState.FAILED, RepoNotFound.code)
    else:
        measure(database, first, [-5, 1], space)
    finish(database, reindex_id)
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
def test_a_reindex_is_a_row_that_waits_for_a_worker(admin: TestClient, body: dict, selection: dict):
    response = admin.post("/v1/admin/reindex", json=body)
    assert response.status_code == 202
    told = response.json()
    assert (told["selection"], told["state"], told["stage"]) == (selection, "running", "queueing")
    shown = admin.get(f"{REINDEXES}/{told['id']}").json()
    assert shown == told | {"jobs": dict.fromkeys(JobState, 0), "failed": [], "left": []}


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
def test_a_selection_that_is_none_is_refused(admin: TestClient, body: dict, status: int, code: str):
    response = admin.post("/v1/admin/reindex", json=body)
    assert (response.status_code, documented_problem(response)["code"]) == (status, code)


def test_one_is_active_at_a_time(admin: TestClient):
    admin.post("/v1/admin/reindex", json={"all": True})
    response = admin.post("/v1/admin/reindex", json={"all": True})
    assert (response.status_code, documented_problem(response)["code"]) == (409, "reindex_active")


def test_its_progress_and_what_failed_are_shown(admin: TestClient, database: Database):
    reindex_id = ready(database, failing=True)
    told = admin.get(f"{REINDEXES}/{reindex_id}").json()
    assert (told["state"], told["total"], told["queued"], told["carried"]) == ("ready", 3, 3, 1)
    assert (told["jobs"]["done"], told["jobs"]["failed"]) == (2, 1)
    assert told["failed"] == [{"code": "repo_not_found", "count": 1, "models": ["a/m0"]}]
    assert told["contract"][0]["encoder_version"] == "1"


def test_the_drift_is_told_per_space(admin: TestClient, database: Database):
    told = admin.get(f"{REINDEXES}/{ready(database)}/drift").json()
    [pair] = told["spaces"]
    assert (told["final"], pair["old"], pair["lost"]) == (True, SPACE.key, {"count": 0, "repo_ids": []})
    assert (pair["drift"]["models"], len(pair["drift"]["histogram"])) == (3, 10)


def test_answers_come_from_the_new_space_after_the_switch_and_from_the_old_after_the_rollback(
    admin: TestClient, database: Database
):
    reindex_id = ready(database)
    beside = dataclasses.replace(SPACE, edition=reindex_id).key

    def answered() -> str:
        refresh(admin)
        response = admin.get("/v1/models/a/m1/neighbors?k=1").json()
        assert len(response["neighbors"]) == 1
        return response["space"]["key"]

    assert answered() == SPACE.key
    assert admin.post(f"{REINDEXES}/{reindex_id}/switch", json={}).json()["state"] == "switched"
    assert answered() == beside
    assert [space["serving"] for space in admin.get("/v1/spaces").json()["spaces"]] == [True, False]
    assert admin.post(f"{REINDEXES}/{reindex_id}/rollback", json={}).json()["state"] == "rolled_back"
    assert answered() == SPACE.key


def test_a_model_shows_what_serves(admin: TestClient, database: Database):
    reindex_id = ready(database)
    table = BaseTable(np.zeros((1, 2), np.float32), 0.1)
    with database.transaction() as session:
        for space in (SPACE, dataclasses.replace(SPACE, edition=reindex_id)):
            spaces.store_base_table(session, space, SPACE.base_repo, SPACE.base_sha, table)
    keys = [each["space"]["key"] for each in admin.get("/v1/models/a/m1").json()["embeddings"]]
    assert keys == [SPACE.key]


def test_models_are_not_lost_unasked(admin: TestClient, database: Database):
    newer = dataclasses.replace(SPACE, encoder_version="2")
    reindex_id = ready(database, newer, failing=True)
    response = admin.post(f"{REINDEXES}/{reindex_id}/switch", json={})
    assert (response.status_code, documented_problem(response)["code"]) == (409, "reindex_incomplete")
    assert "a/m0" in response.json()["detail"]
    assert admin.post(f"{REINDEXES}/{reindex_id}/switch", json={"force": True}).json()["state"] == "switched"


def test_what_is_not_measured_is_not_switched_to(admin: TestClient, database: Database):
    put(database)
    response = admin.post(f"{REINDEXES}/{begin(database)}/switch", json={"force": True})
    assert (response.status_code, documented_problem(response)["code"]) == (409, "reindex_not_ready")


def test_a_cancelled_one_is_over(admin: TestClient, database: Database):
    reindex_id = ready(database)
    told = admin.post(f"{REINDEXES}/{reindex_id}/cancel").json()
    assert (told["state"], told["stage"]) == ("cancelled", "discarding")
    for verb in ("cancel", "rollback", "switch"):
        response = admin.post(f"{REINDEXES}/{reindex_id}/{verb}", json={})
        assert (response.status_code, documented_problem(response)["code"]) == (409, "reindex_over")


def test_they_are_listed_page_by_page(admin: TestClient, database: Database):
    for _ in range(3):
        number = admin.post("/v1/admin/reindex", json={"all": True}).json()["id"]
        admin.post(f"{REINDEXES}/{number}/cancel")
    first = admin.get(f"{REINDEXES}?limit=2").json()
    rest = admin.get(f"{REINDEXES}?limit=2&cursor={first['next_cursor']}").json()
    assert [each["id"] for page in (first, rest) for each in page["reindexes"]] == [3, 2, 1]


@pytest.mark.parametrize("path", ["", "/drift"])
def test_what_is_not_there_is_told(admin: TestClient, path: str):
    response = admin.get(f"{REINDEXES}/7{path}")
    assert (response.status_code, documented_problem(response)["code"]) == (404, "reindex_not_found")


def test_it_is_for_admins(admin: TestClient):
    del admin.headers["X-Admin-Key"]
    for response in (admin.post("/v1/admin/reindex", json={"all": True}), admin.get(REINDEXES)):
        assert (response.status_code, documented_problem(response)["code"]) == (401, "admin_key_required")
