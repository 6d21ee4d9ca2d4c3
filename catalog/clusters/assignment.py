"""Assigns models that arrive to the clusters that are shown."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from sqlalchemy.orm import Session

from catalog.clusters.fitting import place, widened
from catalog.clusters.repository import clusters
from catalog.clusters.repository import members as cluster_members
from catalog.clusters.repository import runs as cluster_runs
from catalog.clusters.repository.clusters import Centroids
from catalog.models.repository import models
from catalog.spaces import repository as spaces
from catalog.tables import SpaceRow


@dataclass
class Placer:
    """Puts models that arrive into the clusters that are shown. It remembers the centroids of the spaces it met."""

    _known: dict[int, Centroids] = field(default_factory=dict)

    def place(self, session: Session, space: SpaceRow, model_id: int, vector: np.ndarray | None) -> None:
        """`vector` (d,), or None for a model that has none to speak of. The caller holds `vectors.lock_feed`."""
        run, number = cluster_runs.current(session, space.id), None
        if run is not None:
            if space.id not in self._known or self._known[space.id].run_id != run.id:
                self._known[space.id] = clusters.centroids(session, run.id)
            number = put(session, self._known[space.id], model_id, vector)
        if spaces.leads(session, space):
            models.set_cluster(session, model_id, number)


def put(session: Session, known: Centroids, model_id: int, vector: np.ndarray | None) -> int | None:
    """Place a model in a run; returns the number of its cluster."""
    if vector is None:
        cluster_members.take_out(session, known.run_id, model_id)
        return None
    found = place(vector, known.centroids, widened(known.radius, known.sizes))
    number, cosine = (known.numbers[found[0]], found[1]) if found else (None, None)
    cluster_members.place(session, known.run_id, model_id, number, cosine)
    return number
