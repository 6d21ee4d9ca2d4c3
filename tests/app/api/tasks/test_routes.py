from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from catalog.archives import repository as archives
from catalog.auth.viewer import PUBLIC
from catalog.database import Database
from catalog.errors import ArchiveNotFound
from catalog.jobs.repository import jobs
from catalog.models.repository import models as model_repository
from catalog.tasks import repository as tasks
from catalog.tasks import service as task_service
from catalog.vectors.repository import feed
from tests.support import catalog as entries
from tests.support.api import refresh
from tests.support.catalog import SPACE
from tests.support.problem_documents import documented_problem
from tests.support.task_requests import FIGURES, ROWS, ask, finish

MINE = {"X-API-Key": "mine and nobody else's"}


@pytest.fixture
def models(database: Database, api: TestClient) -> Database:
    for number, name in enumerate(("law", "math", "code")):
        entries.put(database, f"owner/{name}", np.eye(3)[number])
    refresh(api)
    return database


def test_a_task_is_asked_and_answered(models: Database, api: TestClient):
    task = ask(api, name="contracts", verify=2)
    assert [run["state"] for run in task["runs"]] == ["queued"]
    assert (task["examples"], task["examples_kept"]) == (8, True)

    finish(models, task, [[1, 0.3, 0], [1, 0.2, 0], [1, 0.4, 0], [1, 0.25, 0], [1, 0.35, 0]])

    done = api.get(f"/v1/tasks/{task['id']}").json()
    [run] = done["runs"]
    assert (run["state"], run["seconds"], run["borne_out"], run["base_loss"]) == ("done", 2.5, True, 3.0)
    assert run["scores"] == FIGURES["scores"]
    assert not done["examples_kept"]
    [on_base] = api.get(f"/v1/tasks/{task['id']}/neighbors", params={"k": 2}).json()["bases"]
    assert [each["repo_id"] for each in on_base["neighbors"]] == ["owner/law", "owner/math"]
    assert on_base["neighbors"][0]["low"] < on_base["neighbors"][0]["similarity"] < on_base["neighbors"][0]["high"]
    assert (on_base["covered"], on_base["note"]) == (True, None)


def test_a_task_that_nothing_here_is_like_has_a_note(models: Database, api: TestClient):
    task = ask(api)
    finish(models, task, [[1, 1, 1]] * 5)
    [on_base] = api.get(f"/v1/tasks/{task['id']}/neighbors").json()["bases"]
    assert not on_base["covered"]
    assert on_base["note"].startswith("Nothing here is like this task")


def test_halves_that_have_another_nearest_are_told_of(models: Database, api: TestClient):
    task = ask(api)
    finish(models, task, [[1, 0.8, 0], *[[0.8, 1, 0]] * 3, [1, 0.8, 0]])
    [on_base] = api.get(f"/v1/tasks/{task['id']}/neighbors").json()["bases"]
    assert [(each["repo_id"], each["first"]) for each in on_base["neighbors"][:2]] == [
        ("owner/law", 0.25),
        ("owner/math", 0.75),
    ]
    assert on_base["covered"]
    assert on_base["note"].startswith("Most halves of the examples are nearest to another model")


def test_what_has_just_left_is_no_neighbour(models: Database, api: TestClient):
    task = ask(api)
    finish(models, task, [[1, 0.3, 0]] * 5)
    with models.transaction() as session:
        feed.lock_feed(session)
        feed.remove(session, model_repository.find(session, "owner/law").id)
    [on_base] = api.get(f"/v1/tasks/{task['id']}/neighbors").json()["bases"]  # its index has not heard of it yet
    assert [each["repo_id"] for each in on_base["neighbors"]] == ["owner/math", "owner/code"]


def test_a_page_of_one_does_not_change_what_halves_choose(models: Database, api: TestClient):
    task = ask(api)
    finish(models, task, [[1, 0.8, 0], *[[0.8, 1, 0]] * 3, [1, 0.8, 0]])
    [on_base] = api.get(f"/v1/tasks/{task['id']}/neighbors", params={"k": 1}).json()["bases"]
    assert [each["first"] for each in on_base["neighbors"]] == [0.25]


def test_examples_may_hold_what_json_has_its_own_signs_for(models: Database, api: TestClient):
    rows = [{"instruction": "Escape \\u0000 and \0.", "output": "\\"}] * 5
    task = ask(api, examples=rows)
    with models.transaction() as session:
        [kept, *_] = tasks.get(session, task["id"]).examples
    assert kept["instruction"] == "Escape \\u0000 and \ufffd."


@pytest.mark.parametrize("name", ["2024", "-a", "a b", ""])
def test_a_name_that_expressions_could_not_tell_is_refused(models: Database, api: TestClient, name: str):
    response = api.post("/v1/tasks", json={"examples": ROWS, "name": name})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_input")


def test_chats_are_examples_too(models: Database, api: TestClient):
    chat = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    ask(api, examples=[{"messages": chat}] * 5)


def test_a_wrong_example_is_named(models: Database, api: TestClient):
    response = api.post("/v1/tasks", json={"examples": [*ROWS, {"instruction": "no output"}]})
    problem = documented_problem(response)
    assert (problem["code"], "Example 9" in problem["detail"]) == ("invalid_examples", True)


def test_the_job_of_a_task_is_shown_as_one(models: Database, api: TestClient):
    task = ask(api)
    job = api.get(f"/v1/jobs/{task['runs'][0]['job']}").json()
    assert job["repo_id"] == f"task:{task['id']}@{SPACE.base_repo}"
    assert api.post(f"/v1/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    assert api.get(f"/v1/tasks/{task['id']}").json()["runs"][0]["state"] == "cancelled"


def test_tasks_come_in_pages(models: Database, api: TestClient):
    asked = [ask(api)["id"] for _ in range(3)]
    first = api.get("/v1/tasks", params={"limit": 2}).json()
    rest = api.get("/v1/tasks", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [task["id"] for page in (first, rest) for task in page["tasks"]] == asked[::-1]


def test_a_deleted_task_is_gone(models: Database, api: TestClient):
    task = ask(api)
    assert api.delete(f"/v1/tasks/{task['id']}").json()["id"] == task["id"]
    assert documented_problem(api.get(f"/v1/tasks/{task['id']}"))["code"] == "task_not_found"
    with models.transaction() as session:
        assert jobs.page(session) == []


def test_a_task_of_a_key_is_seen_with_that_key(models: Database, api: TestClient):
    task = ask(api, MINE)
    place = f"/v1/tasks/{task['id']}"
    assert [api.get(place, headers=headers).status_code for headers in ({}, MINE)] == [404, 200]
    job = f"/v1/jobs/{task['runs'][0]['job']}"
    assert [api.get(job, headers=headers).status_code for headers in ({}, MINE)] == [404, 200]


def keep(database: Database, task: dict[str, Any], content: bytes) -> None:
    with database.transaction() as session:
        [run] = tasks.get(session, task["id"]).runs
        archives.store(session, run.model_id, io.BytesIO(content))


def test_an_adapter_that_was_kept_can_be_downloaded(models: Database, api: TestClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archives, "PIECE", 3)
    task = ask(api, name="mine", keep_adapter=True)
    assert task["keep_adapter"]
    keep(models, task, b"eight by")
    response = api.get(f"/v1/tasks/{task['id']}/adapter")
    assert (response.content, response.headers["content-length"]) == (b"eight by", "8")
    assert f'filename="task-mine-{SPACE.base_repo.replace("/", "-")}.zip"' in response.headers["content-disposition"]


def test_what_is_deleted_while_it_is_read_is_cut_off(
    models: Database, api: TestClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(archives, "PIECE", 3)
    task = ask(api, keep_adapter=True)
    keep(models, task, b"eight by")
    pieces = task_service.adapter(models, task["id"], None, PUBLIC).pieces
    assert next(pieces) == b"eig"
    task_service.delete(models, task["id"], PUBLIC)
    with pytest.raises(ArchiveNotFound):
        next(pieces)


def test_an_adapter_that_was_not_kept_is_none(models: Database, api: TestClient):
    place = f"/v1/tasks/{ask(api)['id']}/adapter"
    assert documented_problem(api.get(place))["code"] == "archive_not_found"


def test_an_adapter_has_to_be_waited_for(models: Database, api: TestClient):
    place = f"/v1/tasks/{ask(api, keep_adapter=True)['id']}/adapter"
    assert documented_problem(api.get(place))["code"] == "task_not_done"
    assert documented_problem(api.get(place, params={"base": "other/base"}))["code"] == "archive_not_found"
