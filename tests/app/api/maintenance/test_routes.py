from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from catalog.database import Database
from tests.support import catalog as entries
from tests.support.problem_documents import documented_problem
from tests.support.task_requests import create_task, finish_task

PATH = "/v1/admin/sweep"


@pytest.fixture
def old_task(api: TestClient, database: Database) -> dict[str, Any]:
    """A task that ended a hundred days ago."""
    entries.put(database, "owner/law", [1.0, 0.0])
    task = create_task(api, name="mine")
    finish_task(database, task, [[1.0, 0.0]])
    with database.transaction() as session:
        session.execute(text("UPDATE tasks SET created_at = now() - interval '100 days'"))
        session.execute(text("UPDATE jobs SET finished_at = now() - interval '100 days'"))
    return task


def kinds(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {kind["kind"]: kind for kind in body["kinds"]}


def test_preview_shows_what_would_go_and_deletes_nothing(api: TestClient, old_task: dict[str, Any]):
    shown = [kinds(api.get(PATH).json())["tasks"] for _ in range(2)]
    assert shown[0] == shown[1]
    row = shown[0]
    assert (row["rows"], row["expired"], row["setting"], row["seconds"]) == (
        1, 1, "DELTADEX_RESULT_RETENTION", 90 * 86_400,
    )  # fmt: skip
    assert row["bytes"] == row["expired_bytes"] > 0
    assert row["oldest"] is not None
    assert api.get(f"/v1/tasks/{old_task['id']}").status_code == 200


def test_sweep_deletes_it(api: TestClient, old_task: dict[str, Any]):
    body = api.post(PATH).json()
    assert body["complete"]
    assert {kind: row["deleted"] for kind, row in kinds(body).items() if row["deleted"]} == {"tasks": 1}
    assert kinds(api.get(PATH).json())["tasks"]["rows"] == 0


def test_swept_task_is_a_404_everywhere(api: TestClient, old_task: dict[str, Any]):
    api.post(PATH)
    path = f"/v1/tasks/{old_task['id']}"
    for response in (api.get(path), api.get(f"{path}/adapter"), api.get(f"{path}/neighbors"), api.delete(path)):
        assert documented_problem(response)["code"] == "task_not_found"
    [run] = old_task["runs"]
    assert documented_problem(api.get(f"/v1/jobs/{run['job']}"))["code"] == "job_not_found"
    assert documented_problem(api.post("/v1/search", json={"expression": "task:mine"}))["code"] == "term_not_found"
    selection = api.post("/v1/selections", json={"task": "mine"})
    assert documented_problem(selection)["code"] == "task_not_found"


def test_sweep_is_in_the_audit_log(api: TestClient):
    api.post(PATH)
    [entry] = api.get("/v1/admin/audit").json()["audit"]
    assert (entry["action"], entry["outcome"]) == (f"POST {PATH}", "done")


@pytest.mark.usefixtures("old_task")
def test_results_over_the_quota_of_a_key_are_refused(api: TestClient, database: Database):
    api.app.state.settings = api.app.state.settings.model_copy(update={"max_results": 2})
    create_task(api)
    response = api.post("/v1/tasks", json={"examples": [{"instruction": "a", "output": "b"}] * 8})
    problem = documented_problem(response)
    assert (response.status_code, problem["code"]) == (409, "too_many_results")
    api.post(PATH)  # the old task goes
    create_task(api)


@pytest.mark.parametrize("limit", ["archive_bytes", "archive_bytes_per_key"])
def test_merge_is_refused_while_archives_are_full(api: TestClient, database: Database, limit: str):
    for number, name in enumerate(("law", "math")):
        entries.put(database, f"owner/{name}", np.eye(2)[number])
    body = {"models": ["owner/law", "owner/math"]}
    merge = api.post("/v1/merges", json=body)
    assert merge.status_code == 202, merge.text
    with database.transaction() as session:
        statement = "INSERT INTO archives (model_id, size, sha256) SELECT model_id, 1000, '' FROM merges"
        session.execute(text(statement))
    api.app.state.settings = api.app.state.settings.model_copy(update={limit: 1_000})
    problem = documented_problem(api.post("/v1/merges", json=body))
    assert problem["code"] == "archive_quota_exceeded"
    assert f"DELTADEX_{limit.upper()}" in problem["detail"]
    refused = api.post("/v1/tasks", json={"examples": [{"instruction": "a", "output": "b"}] * 8, "keep_adapter": True})
    assert documented_problem(refused)["code"] == "archive_quota_exceeded"
    create_task(api)  # which keeps no adapter
