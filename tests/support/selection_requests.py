"""Selections that are finished as a worker would."""

from __future__ import annotations

from typing import Any

from catalog.database import Database
from catalog.jobs.repository import attempts
from catalog.selections import repository as selections
from tests.support import catalog as entries

MEAN = {"mean": 2.0, "low": 1.5, "high": 2.5}
SET = {
    "seed": 0,
    "modules": [
        {"repo_id": "owner/law", "similarity": 0.9, "weight": 1.25},
        {"repo_id": "owner/math", "similarity": 0.3, "weight": -0.5},
        {"repo_id": "owner/code", "similarity": 0.1, "weight": 0.0},
    ],
    "examples_loss": 1.5,
    "held_out_loss": 1.75,
}
FIGURES = {
    "seconds": 4.5,
    "candidates": 3,
    "left_out": [{"repo_id": "owner/gone", "error": "repo_not_found"}],
    "examples": 6,
    "held_out": 2,
    "held_out_unseen": True,
    "base_loss": 3.0,
    "nearest_alone": {"repo_id": "owner/law", "held_out_loss": 2.25},
    "arms": [
        {"arm": "nearest", "held_out_loss": MEAN, "beside_random": MEAN | {"low": None, "high": None}, "sets": [SET]},
        {"arm": "random", "held_out_loss": MEAN, "beside_random": None, "sets": [SET]},
    ],
}


def finish(database: Database, selection: dict[str, Any]) -> None:
    """As a worker would."""
    worker = entries.put_worker(database)
    entries.claim(database, selection["job"], worker)
    with database.transaction() as session:
        assert attempts.finish(session, selection["job"], worker, None)
        selections.store(session, selection["id"], FIGURES)
