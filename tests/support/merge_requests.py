"""Results of merges, stored without a worker."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from catalog.archives import repository as archives
from catalog.database import Database
from catalog.jobs.repository import attempts
from catalog.merges import repository as merges
from catalog.spaces import repository as spaces
from tests.support import catalog as entries
from tests.support.catalog import SPACE

METRICS = {
    "rank": 16,
    "modules": 60,
    "bytes": 1000,
    "seconds": {"fetching": 0.5, "merging": 1.0, "measuring": 0.5},
    "spaces": {SPACE.feature: {"cosine": 0.9, "residual": 0.4, "norm": 1.2, "predicted_norm": 1.4}},
    "cosines_to_parts": [0.6, 0.7],
}


def finish_merge(database: Database, merge: dict[str, Any], vector: list[float], content: bytes = b"zip") -> None:
    """Finish the job of a merge, and store its vector and its archive."""
    worker = entries.put_worker(database)
    entries.claim(database, merge["job"], worker)
    with database.transaction() as session:
        assert attempts.finish(session, merge["job"], worker, None)
        space = spaces.get(session, SPACE.key)
        merges.store(session, merge["id"], {space.id: np.array(vector, np.float32)}, METRICS)
        archives.store(session, merges.get(session, merge["id"]).model_id, io.BytesIO(content))
