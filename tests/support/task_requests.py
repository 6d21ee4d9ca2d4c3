"""Tasks that are created over HTTP, and results stored without a worker."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi.testclient import TestClient

from catalog.database import Database
from catalog.jobs.repository import attempts
from catalog.spaces import repository as spaces
from catalog.tasks import repository as tasks
from tests.support import catalog as entries
from tests.support.catalog import SPACE

ROWS = [{"instruction": f"Ask {number}.", "output": "yes"} for number in range(8)]
METRICS = {
    "seconds": 2.5,
    "holdout_examples": 2,
    "base_loss": 3.0,
    "rank_correlation": 0.5,
    "scores": [
        {"repo_id": "owner/law", "similarity": 0.9, "loss": 2.0, "error": None},
        {"repo_id": "owner/math", "similarity": 0.3, "loss": None, "error": "repo_not_found"},
    ],
}


def create_task(api: TestClient, headers: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    response = api.post("/v1/tasks", json={"examples": ROWS, **fields}, headers=headers)
    assert response.status_code == 202, response.text
    return response.json()


def finish_task(database: Database, task: dict[str, Any], vectors: list[list[float]]) -> None:
    """Finish the only job of a task, and store its vectors (1 + h, d)."""
    [run] = task["runs"]
    worker = entries.put_worker(database)
    entries.claim(database, run["job"], worker)
    with database.transaction() as session:
        assert attempts.finish(session, run["job"], worker, None)
        [task_run] = tasks.get(session, task["id"]).runs
        space = spaces.get(session, SPACE.key)
        tasks.store(session, task_run.id, {space.id: np.array(vectors, np.float32)}, METRICS)
        tasks.delete_examples(session)
