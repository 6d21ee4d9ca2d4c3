"""Results of tasks that the CLI creates, stored without a worker."""

from __future__ import annotations

from catalog.auth.viewer import ADMIN
from catalog.database import Database
from catalog.tasks import service as task_service
from tests.support.task_requests import finish_task
from tests.support.waiting import wait_until


def finish_next_task(database: Database) -> None:
    """Wait until a task is created, and finish its only job."""
    [(task, jobs)] = wait_until(
        lambda: task_service.list_page(database, ADMIN, before=None, limit=1), "the task is created"
    )
    [job] = jobs.values()
    finish_task(
        database,
        {"id": task.id, "runs": [{"job": job.id}]},
        [[1, 0.3, 0], [1, 0.2, 0], [1, 0.4, 0], [1, 0.25, 0], [1, 0.35, 0]],
    )
