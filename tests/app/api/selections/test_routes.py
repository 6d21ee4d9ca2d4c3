from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from catalog.database import Database
from tests.support import catalog as entries
from tests.support.catalog import SPACE
from tests.support.keys import AS_ANYBODY, add_key
from tests.support.problem_documents import documented_problem
from tests.support.selection_requests import METRICS, finish
from tests.support.task_requests import create_task as ask_task
from tests.support.task_requests import finish_task

KEY = "the API key of one user"
MINE = {"X-API-Key": KEY}


@pytest.fixture(autouse=True)
def own_key(database: Database) -> None:
    add_key(database, KEY)


@pytest.fixture
def models(database: Database) -> Database:
    entries.put(database, "owner/law", [1, 0, 0])
    return database


@pytest.fixture
def task(models: Database, api: TestClient) -> dict[str, Any]:
    """One that is done, of the key of these tests. From then on the client sends it."""
    api.headers.update(MINE)
    asked = ask_task(api, name="mine", keep_examples=True)
    finish_task(models, asked, [[1, 0.3, 0]])
    return asked


def create(api: TestClient, task: int | str, headers: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    response = api.post("/v1/selections", json={"task": task, **more}, headers=headers)
    assert response.status_code == 202, response.text
    return response.json()


def test_a_selection_is_created_and_finished(models: Database, api: TestClient, task: dict[str, Any]):
    created = create(api, "mine", count=3, seed=2, strategies=["nearest", "diverse"])
    assert (created["task"], created["base"], created["state"]) == (task["id"], SPACE.base_repo, "queued")
    assert (created["count"], created["seed"], created["strategies"]) == (3, 2, ["nearest", "diverse"])
    assert created["metrics"] is None
    finish(models, created)
    finished = api.get(f"/v1/selections/{created['id']}").json()
    assert (finished["state"], finished["metrics"]) == ("done", METRICS)


def test_the_default_is_one_set_by_one_strategy(api: TestClient, task: dict[str, Any]):
    assert create(api, "mine")["strategies"] == ["diverse"]


def test_a_selection_shows_the_team_tags_that_it_requires(api: TestClient, task: dict[str, Any]):
    created = create(api, "mine", team_tags=["prod", "prod", "legal"])
    assert created["team_tags"] == ["prod", "legal"]
    assert api.get(f"/v1/selections/{created['id']}").json()["team_tags"] == ["prod", "legal"]


def test_a_task_can_be_given_by_its_number(api: TestClient, task: dict[str, Any]):
    for name in (task["id"], str(task["id"])):
        assert create(api, name)["task"] == task["id"]


def test_a_task_without_its_examples_is_refused(models: Database, api: TestClient):
    forgetful = ask_task(api)
    finish_task(models, forgetful, [[1, 0.3, 0]])
    response = api.post("/v1/selections", json={"task": forgetful["id"]})
    assert documented_problem(response)["code"] == "examples_not_kept"


def test_an_unknown_or_unfinished_task_is_refused(models: Database, api: TestClient):
    assert documented_problem(api.post("/v1/selections", json={"task": "none"}))["code"] == "task_not_found"
    waiting = ask_task(api, keep_examples=True)
    response = api.post("/v1/selections", json={"task": waiting["id"]})
    assert documented_problem(response)["code"] == "task_not_finished"


@pytest.mark.parametrize(
    "wrong",
    [{"strategies": ["random"]}, {"strategies": []}, {"count": 0}, {"budget": 1000}, {"seed": -1}, {"task": "a\0b"}],
)
def test_invalid_values_are_refused(api: TestClient, task: dict[str, Any], wrong: dict[str, Any]):
    response = api.post("/v1/selections", json={"task": "mine", **wrong})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_input")


def test_selections_come_in_pages(api: TestClient, task: dict[str, Any]):
    created = [create(api, "mine")["id"] for _ in range(3)]
    first = api.get("/v1/selections", params={"limit": 2}).json()
    rest = api.get("/v1/selections", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [each["id"] for page in (first, rest) for each in page["selections"]] == created[::-1]


def test_a_deleted_selection_is_not_found(api: TestClient, task: dict[str, Any]):
    url = f"/v1/selections/{create(api, 'mine')['id']}"
    assert api.delete(url).status_code == 200
    assert documented_problem(api.get(url))["code"] == "selection_not_found"
    assert api.get(f"/v1/tasks/{task['id']}").status_code == 200


def test_a_selection_is_visible_only_to_the_key_that_created_it(api: TestClient, task: dict[str, Any]):
    created = create(api, "mine")
    for url in (f"/v1/selections/{created['id']}", f"/v1/jobs/{created['job']}"):
        assert [api.get(url, headers=headers).status_code for headers in (AS_ANYBODY, MINE)] == [404, 200]


def test_the_key_that_created_it_may_retry_the_job(api: TestClient, database: Database, task: dict[str, Any]):
    add_key(database, "the key of another user")
    job = f"/v1/jobs/{create(api, 'mine')['job']}"
    assert api.post(f"{job}/cancel").json()["state"] == "cancelled"
    assert api.post(f"{job}/retry", headers={"X-API-Key": "the key of another user"}).status_code == 404
    assert api.post(f"{job}/retry").json()["state"] == "queued"
