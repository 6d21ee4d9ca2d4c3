from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from catalog.database import Database
from tests.support import catalog as entries
from tests.support.catalog import SPACE
from tests.support.problem_documents import documented_problem
from tests.support.selection_requests import FIGURES, finish
from tests.support.task_requests import ask as ask_task
from tests.support.task_requests import finish as finish_task

MINE = {"X-API-Key": "mine and nobody else's"}


@pytest.fixture
def models(database: Database) -> Database:
    entries.put(database, "owner/law", [1, 0, 0])
    return database


@pytest.fixture
def task(models: Database, api: TestClient) -> dict[str, Any]:
    """One that is done."""
    asked = ask_task(api, name="mine", keep_examples=True)
    finish_task(models, asked, [[1, 0.3, 0]])
    return asked


def ask(api: TestClient, task: int | str, headers: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    response = api.post("/v1/selections", json={"task": task, **more}, headers=headers)
    assert response.status_code == 202, response.text
    return response.json()


def test_a_selection_is_asked_and_answered(models: Database, api: TestClient, task: dict[str, Any]):
    asked = ask(api, "mine", count=3, seeds=2, arms=["nearest", "random"])
    assert (asked["task"], asked["base"], asked["state"]) == (task["id"], SPACE.base_repo, "queued")
    assert (asked["count"], asked["seeds"], asked["arms"], asked["figures"]) == (3, 2, ["nearest", "random"], None)
    finish(models, asked)
    found = api.get(f"/v1/selections/{asked['id']}").json()
    assert (found["state"], found["figures"]) == ("done", FIGURES)


def test_a_task_is_named_by_its_number_too(api: TestClient, task: dict[str, Any]):
    for name in (task["id"], str(task["id"])):
        assert ask(api, name)["task"] == task["id"]


def test_examples_have_to_be_kept(models: Database, api: TestClient):
    forgetful = ask_task(api)
    finish_task(models, forgetful, [[1, 0.3, 0]])
    response = api.post("/v1/selections", json={"task": forgetful["id"]})
    assert documented_problem(response)["code"] == "examples_not_kept"


def test_a_task_has_to_be_there_and_done(models: Database, api: TestClient):
    assert documented_problem(api.post("/v1/selections", json={"task": "none"}))["code"] == "task_not_found"
    waiting = ask_task(api, keep_examples=True)
    response = api.post("/v1/selections", json={"task": waiting["id"]})
    assert documented_problem(response)["code"] == "task_not_done"


@pytest.mark.parametrize(
    "wrong", [{"arms": ["best"]}, {"arms": []}, {"count": 0}, {"budget": 1000}, {"seeds": 0}, {"task": "a\0b"}]
)
def test_what_makes_no_sense_is_refused(api: TestClient, task: dict[str, Any], wrong: dict[str, Any]):
    response = api.post("/v1/selections", json={"task": "mine", **wrong})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_input")


def test_selections_come_in_pages(api: TestClient, task: dict[str, Any]):
    asked = [ask(api, "mine")["id"] for _ in range(3)]
    first = api.get("/v1/selections", params={"limit": 2}).json()
    rest = api.get("/v1/selections", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [each["id"] for page in (first, rest) for each in page["selections"]] == asked[::-1]


def test_a_deleted_selection_is_gone(api: TestClient, task: dict[str, Any]):
    place = f"/v1/selections/{ask(api, 'mine')['id']}"
    assert api.delete(place).status_code == 200
    assert documented_problem(api.get(place))["code"] == "selection_not_found"
    assert api.get(f"/v1/tasks/{task['id']}").status_code == 200


def test_what_is_asked_with_a_key_is_seen_with_that_key(api: TestClient, task: dict[str, Any]):
    asked = ask(api, "mine", MINE)
    for place in (f"/v1/selections/{asked['id']}", f"/v1/jobs/{asked['job']}"):
        assert [api.get(place, headers=headers).status_code for headers in ({}, MINE)] == [404, 200]


def test_whoever_asked_with_a_key_may_retry(api: TestClient, task: dict[str, Any]):
    job = f"/v1/jobs/{ask(api, 'mine', MINE)['job']}"
    assert api.post(f"{job}/retry", headers=MINE).json()["state"] == "queued"
    assert api.post(f"{job}/cancel", headers=MINE).json()["state"] == "cancelled"
    assert api.post(f"{job}/retry").status_code == 404
    assert api.post(f"{job}/retry", headers=MINE).json()["state"] == "queued"
