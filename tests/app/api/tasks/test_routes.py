from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from catalog.archives import repository as archives
from catalog.auth.viewer import ADMIN
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
from tests.support.keys import AS_ANYBODY, add_key
from tests.support.problem_documents import documented_problem
from tests.support.task_requests import METRICS, ROWS, create_task, finish_task

KEY = "the key of a single user"
MINE = {"X-API-Key": KEY}


@pytest.fixture(autouse=True)
def own_key(database: Database) -> None:
    add_key(database, KEY)


@pytest.fixture
def models(database: Database, api: TestClient) -> Database:
    for number, name in enumerate(("law", "math", "code")):
        entries.put(database, f"owner/{name}", np.eye(3)[number])
    refresh(api)
    return database


def test_task_is_created_and_has_neighbors_and_scores(models: Database, api: TestClient):
    task = create_task(api, name="contracts", verify=2)
    assert [run["state"] for run in task["runs"]] == ["queued"]
    assert (task["examples"], task["examples_kept"]) == (8, True)

    finish_task(models, task, [[1, 0.3, 0], [1, 0.2, 0], [1, 0.4, 0], [1, 0.25, 0], [1, 0.35, 0]])

    done = api.get(f"/v1/tasks/{task['id']}").json()
    [run] = done["runs"]
    assert (run["state"], run["seconds"], run["nearest_beats_base"], run["base_loss"]) == ("done", 2.5, True, 3.0)
    assert run["scores"] == METRICS["scores"]
    assert not done["examples_kept"]
    [on_base] = api.get(f"/v1/tasks/{task['id']}/neighbors", params={"k": 2}).json()["bases"]
    assert [neighbor["repo_id"] for neighbor in on_base["neighbors"]] == ["owner/law", "owner/math"]
    assert on_base["neighbors"][0]["low"] < on_base["neighbors"][0]["similarity"] < on_base["neighbors"][0]["high"]
    assert (on_base["covered"], on_base["note"]) == (True, None)


def test_uncovered_task_has_a_note(models: Database, api: TestClient):
    task = create_task(api)
    finish_task(models, task, [[1, 1, 1]] * 5)
    [on_base] = api.get(f"/v1/tasks/{task['id']}/neighbors").json()["bases"]
    assert not on_base["covered"]
    assert on_base["note"].startswith("Probably no indexed model covers this task")


def test_halves_with_another_nearest_model_give_a_note(models: Database, api: TestClient):
    task = create_task(api)
    finish_task(models, task, [[1, 0.8, 0], *[[0.8, 1, 0]] * 3, [1, 0.8, 0]])
    [on_base] = api.get(f"/v1/tasks/{task['id']}/neighbors").json()["bases"]
    assert [(neighbor["repo_id"], neighbor["nearest_share"]) for neighbor in on_base["neighbors"][:2]] == [
        ("owner/law", 0.25),
        ("owner/math", 0.75),
    ]
    assert on_base["covered"]
    assert on_base["note"].startswith("The order of the models is uncertain")


def test_model_deleted_since_the_index_was_updated_is_no_neighbor(models: Database, api: TestClient):
    task = create_task(api)
    finish_task(models, task, [[1, 0.3, 0]] * 5)
    with models.transaction() as session:
        feed.lock_feed(session)
        feed.remove(session, model_repository.find(session, "owner/law").id)
    [on_base] = api.get(f"/v1/tasks/{task['id']}/neighbors").json()["bases"]  # the index still has the model
    assert [neighbor["repo_id"] for neighbor in on_base["neighbors"]] == ["owner/math", "owner/code"]


def test_nearest_share_does_not_depend_on_the_page_size(models: Database, api: TestClient):
    task = create_task(api)
    finish_task(models, task, [[1, 0.8, 0], *[[0.8, 1, 0]] * 3, [1, 0.8, 0]])
    [on_base] = api.get(f"/v1/tasks/{task['id']}/neighbors", params={"k": 1}).json()["bases"]
    assert [neighbor["nearest_share"] for neighbor in on_base["neighbors"]] == [0.25]


def test_nul_characters_and_escapes_in_examples_are_stored(models: Database, api: TestClient):
    rows = [{"instruction": "Escape \\u0000 and \0.", "output": "\\"}] * 5
    task = create_task(api, examples=rows)
    with models.transaction() as session:
        [example, *_] = tasks.get(session, task["id"]).examples
    assert example["instruction"] == "Escape \\u0000 and \ufffd."


@pytest.mark.parametrize("name", ["2024", "-a", "a b", ""])
def test_name_that_expressions_cannot_parse_returns_422(models: Database, api: TestClient, name: str):
    response = api.post("/v1/tasks", json={"examples": ROWS, "name": name})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_input")


def test_chats_are_accepted_as_examples(models: Database, api: TestClient):
    chat = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    create_task(api, examples=[{"messages": chat}] * 5)


def test_error_names_the_invalid_example(models: Database, api: TestClient):
    response = api.post("/v1/tasks", json={"examples": [*ROWS, {"instruction": "no output"}]})
    problem = documented_problem(response)
    assert (problem["code"], "Example 9" in problem["detail"]) == ("invalid_examples", True)


def test_job_of_a_task_can_be_read_and_cancelled(models: Database, api: TestClient):
    task = create_task(api)
    job = api.get(f"/v1/jobs/{task['runs'][0]['job']}").json()
    assert job["repo_id"] == f"task:{task['id']}@{SPACE.base_repo}"
    assert api.post(f"/v1/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    assert api.get(f"/v1/tasks/{task['id']}").json()["runs"][0]["state"] == "cancelled"


def test_tasks_are_listed_in_pages_newest_first(models: Database, api: TestClient):
    ids = [create_task(api)["id"] for _ in range(3)]
    first = api.get("/v1/tasks", params={"limit": 2}).json()
    rest = api.get("/v1/tasks", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [task["id"] for page in (first, rest) for task in page["tasks"]] == ids[::-1]


def test_deleted_task_returns_404(models: Database, api: TestClient):
    task = create_task(api)
    assert api.delete(f"/v1/tasks/{task['id']}").json()["id"] == task["id"]
    assert documented_problem(api.get(f"/v1/tasks/{task['id']}"))["code"] == "task_not_found"
    with models.transaction() as session:
        assert jobs.list_page(session) == []


def test_task_of_a_key_returns_404_without_that_key(models: Database, api: TestClient):
    task = create_task(api, MINE)
    path = f"/v1/tasks/{task['id']}"
    assert [api.get(path, headers=headers).status_code for headers in (AS_ANYBODY, MINE)] == [404, 200]
    job = f"/v1/jobs/{task['runs'][0]['job']}"
    assert [api.get(job, headers=headers).status_code for headers in (AS_ANYBODY, MINE)] == [404, 200]


def store_adapter(database: Database, task: dict[str, Any], content: bytes) -> None:
    with database.transaction() as session:
        [run] = tasks.get(session, task["id"]).runs
        archives.store(session, run.model_id, io.BytesIO(content))


def test_adapter_can_be_downloaded_with_keep_adapter(
    models: Database, api: TestClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(archives, "PIECE_SIZE", 3)
    task = create_task(api, name="mine", keep_adapter=True)
    assert task["keep_adapter"]
    store_adapter(models, task, b"eight by")
    response = api.get(f"/v1/tasks/{task['id']}/adapter")
    assert (response.content, response.headers["content-length"]) == (b"eight by", "8")
    assert f'filename="task-mine-{SPACE.base_repo.replace("/", "-")}.zip"' in response.headers["content-disposition"]


def test_download_of_an_adapter_deleted_meanwhile_ends_with_an_error(
    models: Database, api: TestClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(archives, "PIECE_SIZE", 3)
    task = create_task(api, keep_adapter=True)
    store_adapter(models, task, b"eight by")
    pieces = task_service.get_adapter(models, task["id"], None, ADMIN).pieces
    assert next(pieces) == b"eig"
    task_service.delete(models, task["id"], ADMIN)
    with pytest.raises(ArchiveNotFound):
        next(pieces)


def test_adapter_without_keep_adapter_returns_archive_not_found(models: Database, api: TestClient):
    path = f"/v1/tasks/{create_task(api)['id']}/adapter"
    assert documented_problem(api.get(path))["code"] == "archive_not_found"


def test_adapter_of_an_unfinished_task_returns_task_not_finished(models: Database, api: TestClient):
    path = f"/v1/tasks/{create_task(api, keep_adapter=True)['id']}/adapter"
    assert documented_problem(api.get(path))["code"] == "task_not_finished"
    assert documented_problem(api.get(path, params={"base": "other/base"}))["code"] == "archive_not_found"


def test_task_without_a_base_over_many_bases_returns_base_required(models: Database, api: TestClient):
    for number in range(task_service.MAX_BASES):
        entries.put(models, f"many/m{number}", [1, 2], space=replace(SPACE, base_repo=f"many/b{number}"))
    response = api.post("/v1/tasks", json={"examples": ROWS})
    problem = documented_problem(response)
    assert problem["code"] == "base_required"
    assert "many/b0" in problem["detail"]
