"""A space whose models stand in groups that are plain to see, and its clusters found in this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sqlalchemy import text

from catalog.clusters import service as cluster_service
from catalog.clusters.parameters import Parameters
from catalog.clusters.runner import Grouper
from catalog.database import Database
from tests.support import catalog as entries

DIMENSION = 16
TOPICS = ("law", "math", "code")


def vector(topic: int, number: int = 0) -> np.ndarray:
    """Of length 3, near an axis."""
    noise = np.random.default_rng((topic, number)).normal(size=DIMENSION)
    return 3 * (np.eye(DIMENSION)[topic] + 0.05 * noise)


def fill(database: Database, each: int = 4, topics: int = 3) -> None:
    """Models `owner/tiny-law-0` and so on."""
    for topic in range(topics):
        for number in range(each):
            entries.put(database, f"owner/tiny-{TOPICS[topic]}-{number}", vector(topic, number))


def cluster(database: Database, folder: Path, **parameters: object) -> int:
    """Asks for a run of the newest space and does it; returns its number."""
    run, space = cluster_service.ask(database, Parameters(**parameters))  # type: ignore[arg-type]
    assert Grouper(database, folder).run(space.id) == run.id
    return run.id


def filters(database: Database) -> dict[str, int | None]:
    """What searches filter by, and a check that whoever follows the feed reads it anew."""
    with database.transaction() as session:
        rows = session.execute(text("SELECT repo_id, cluster FROM models ORDER BY id"))
        return {name: cluster for name, cluster in rows}
