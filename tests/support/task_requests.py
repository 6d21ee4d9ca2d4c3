"""Tasks asked for over HTTP, and finished as a worker would."""

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
FIGURES = {
    "seconds": 2.5,
    "held_back": 2,
    "base_loss": 3.0,
    "agreement": 0.5,
    "scores": [
        {"repo_id": "owner/law", "similarity": 0.9, "loss": 2.0, "error": None},
        {"repo_id": "owner/math", "similarity": 0.3, "loss": None, "error": "repo_not_found"},
    ],
}


def ask(api: TestClient, headers: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    response = api.post("/v1/tasks", json={"examples": ROWS, **more}, headers=headers)
    assert response.status_code == 202, response.text
    return response.json()


def finish(database: Database, task: dict[str, Any], measured: list[list[float]]) -> None:
    """As a worker would."""
    [run] = task["runs"]
    worker = entries.put_worker(database)
    entries.claim(database, run["job"], worker)
    with database.transaction() as session:
        assert attempts.finish(session, run["job"], worker, None)
        [on_base] = tasks.get(session, task["id"]).runs
        space = spaces.get(session, SPACE.key)
        tasks.store(session, on_base.id, {space.id: np.array(measured, np.float32)}, FIGURES)
        tasks.forget_examples(session)
