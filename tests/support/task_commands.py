"""A worker for tasks that the command line asks for."""

from __future__ import annotations

from catalog.auth.viewer import PUBLIC
from catalog.database import Database
from catalog.tasks import service as task_service
from tests.support.task_requests import finish
from tests.support.waiting import wait_until


def work(database: Database) -> None:
    """Wait for a task, and do what a worker would."""
    found = wait_until(lambda: task_service.page(database, PUBLIC, before=None, limit=1), "it is asked for")
    [(task, of_runs)] = found
    [job] = of_runs.values()
    finish(
        database,
        {"id": task.id, "runs": [{"job": job.id}]},
        [[1, 0.3, 0], [1, 0.2, 0], [1, 0.4, 0], [1, 0.25, 0], [1, 0.35, 0]],
    )
