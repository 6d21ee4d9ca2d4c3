"""Tasks asked for and measured, as the API and a worker would."""

from __future__ import annotations

import numpy as np

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.database import Database
from catalog.jobs.quotas import Quota
from catalog.spaces import repository as spaces
from catalog.tasks import repository as tasks
from catalog.tasks import service as task_service
from catalog.tasks.examples import Example
from catalog.tasks.service import Question
from tests.support.catalog import SPACE

EXAMPLES = [Example(f"Ask {number}.", "yes") for number in range(8)]

NOBODY = Quota("anonymous", 100)


def ask(database: Database, viewer: Viewer = PUBLIC, base: str | None = SPACE.base_repo, **more: object) -> int:
    return task_service.ask(database, Question(EXAMPLES, base, **more), NOBODY, viewer)[0].id


def put(database: Database, task_id: int, vectors: np.ndarray) -> None:
    """What a worker would have stored: of all examples, and of halves."""
    with database.transaction() as session:
        [run] = tasks.get(session, task_id).runs
        space = spaces.get(session, SPACE.key)
        tasks.store(session, run.id, {space.id: np.asarray(vectors, np.float32)}, {"seconds": 1.0})
