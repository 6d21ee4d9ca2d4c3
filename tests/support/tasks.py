"""Tasks that are created without the API and measured without a worker."""

from __future__ import annotations

import numpy as np

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.database import Database
from catalog.jobs.quotas import Quota
from catalog.spaces import repository as spaces
from catalog.tasks import repository as tasks
from catalog.tasks import service as task_service
from catalog.tasks.examples import Example
from catalog.tasks.service import TaskRequest
from tests.support.catalog import SPACE

EXAMPLES = [Example(f"Ask {number}.", "yes") for number in range(8)]

ANONYMOUS = Quota("anonymous", 100)


def create_task(
    database: Database, viewer: Viewer = PUBLIC, base: str | None = SPACE.base_repo, **fields: object
) -> int:
    return task_service.create(database, TaskRequest(EXAMPLES, base, **fields), ANONYMOUS, viewer)[0].id


def store_vectors(database: Database, task_id: int, vectors: np.ndarray) -> None:
    """Store the vectors (1 + h, d) of all examples and of halves, as a worker does."""
    with database.transaction() as session:
        [run] = tasks.get(session, task_id).runs
        space = spaces.get(session, SPACE.key)
        tasks.store(session, run.id, {space.id: np.asarray(vectors, np.float32)}, {"seconds": 1.0})
