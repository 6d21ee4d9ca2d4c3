"""A space with well-separated groups of models, and cluster runs in the test process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sqlalchemy import select, text

from catalog.clusters import service as cluster_service
from catalog.clusters.parameters import Parameters
from catalog.clusters.runner import ClusterRunner
from catalog.database import Database
from catalog.models.repository import attributes
from catalog.spaces import repository as spaces
from catalog.tables import Model
from tests.support import catalog as entries

DIMENSION = 16
TOPICS = ("law", "math", "code")


def vector(topic: int, number: int = 0) -> np.ndarray:
    """A vector near the axis of its topic, with a norm of about 3."""
    noise = np.random.default_rng((topic, number)).normal(size=DIMENSION)
    return 3 * (np.eye(DIMENSION)[topic] + 0.05 * noise)


def fill(database: Database, models_per_topic: int = 4, topics: int = 3) -> None:
    """Store the models `owner/tiny-law-0`, `owner/tiny-law-1` and so on."""
    for topic in range(topics):
        for number in range(models_per_topic):
            entries.put(database, f"owner/tiny-{TOPICS[topic]}-{number}", vector(topic, number))


def cluster(database: Database, folder: Path, **parameters: object) -> int:
    """Request a run of the default space and compute it. Returns the id of the run."""
    run, space = cluster_service.request_run(database, Parameters(**parameters))  # type: ignore[arg-type]
    assert ClusterRunner(database, folder).run(space.id) == run.id
    return run.id


def cluster_filters(database: Database) -> dict[str, int | None]:
    """The cluster that searches find each model by, by repo id."""
    with database.transaction() as session:
        changes = attributes.list_changes(session, 0, 10_000, spaces.list_filter_runs(session))
        names = {model_id: name for model_id, name in session.execute(select(Model.id, Model.repo_id))}
        return {names[change.model_id]: change.cluster for change in changes}


def row_versions(database: Database) -> dict[str, tuple[str, int | None]]:
    """The transaction that wrote the row of each model, and the model's seq, by repo id."""
    with database.transaction() as session:
        rows = session.execute(text("SELECT repo_id, xmin::text, seq FROM models"))
        return {name: (version, seq) for name, version, seq in rows}
