"""Results of selections, stored without a worker."""

from __future__ import annotations

from typing import Any

from catalog.database import Database
from catalog.jobs.repository import attempts
from catalog.selections import repository as selections
from tests.support import catalog as entries

MEMBERS = [
    {"repo_id": "owner/law", "similarity": 0.9, "weight": 1.25},
    {"repo_id": "owner/math", "similarity": 0.3, "weight": -0.5},
    {"repo_id": "owner/code", "similarity": 0.1, "weight": 0.0},
]
METRICS = {
    "seconds": 4.5,
    "candidates": 3,
    "left_out": [{"repo_id": "owner/gone", "error": "repo_not_found"}],
    "examples": 6,
    "holdout_examples": 2,
    "holdout_unseen": True,
    "base_loss": 3.0,
    "nearest_alone": {"repo_id": "owner/law", "holdout_loss": 2.25},
    "strategies": [
        {"strategy": "diverse", "members": MEMBERS, "examples_loss": 1.5, "holdout_loss": 1.75},
        {"strategy": "nearest", "members": MEMBERS[:1], "examples_loss": 2.0, "holdout_loss": 2.125},
    ],
}


def finish(database: Database, selection: dict[str, Any]) -> None:
    """Finish the job of a selection as a worker does."""
    worker = entries.put_worker(database)
    entries.claim(database, selection["job"], worker)
    with database.transaction() as session:
        assert attempts.finish(session, selection["job"], worker, None)
        selections.store_metrics(session, selection["id"], METRICS)
