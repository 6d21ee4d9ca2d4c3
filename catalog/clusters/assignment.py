"""Assigns new models to the clusters of the current run."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from sqlalchemy.orm import Session

from catalog.clusters.fitting import nearest_cluster, out_of_sample_radius
from catalog.clusters.repository import clusters
from catalog.clusters.repository import members as cluster_members
from catalog.clusters.repository import runs as cluster_runs
from catalog.clusters.repository.clusters import Centroids
from catalog.tables import ClusterRun, SpaceRow


@dataclass
class ClusterAssigner:
    """Assigns new models to the clusters of the current run. Caches the centroids of each space."""

    _centroids: dict[int, Centroids] = field(default_factory=dict)  # by space id

    def assign(self, session: Session, space: SpaceRow, model_id: int, vector: np.ndarray | None) -> None:
        """Assign a model by its vector (d,), or remove it from its cluster if the vector is None (no shift).

        The caller holds `feed.lock_feed`, and bumps the model's `seq` in the same transaction.
        """
        run = cluster_runs.find_current(session, space.id)
        if run is not None:
            assign_to_run(session, self._get_centroids(session, run), model_id, vector)

    def _get_centroids(self, session: Session, run: ClusterRun) -> Centroids:
        """The centroids of a run. They are read again after a cluster without members was deleted."""
        cached = self._centroids.get(run.space_id)
        if cached is None or (cached.run_id, len(cached.cluster_ids)) != (run.id, run.clusters):
            cached = self._centroids[run.space_id] = clusters.get_centroids(session, run.id)
        return cached


def assign_to_run(session: Session, centroids: Centroids, model_id: int, vector: np.ndarray | None) -> None:
    """Assign a model to the nearest cluster of a run, or remove it from the run if the vector is None."""
    if vector is None:
        cluster_members.remove(session, centroids.run_id, model_id)
        return
    radius = out_of_sample_radius(centroids.radius, centroids.sizes)
    nearest = nearest_cluster(vector, centroids.centroids, radius)
    cluster_id, cosine = (centroids.cluster_ids[nearest[0]], nearest[1]) if nearest else (None, None)
    cluster_members.assign(session, centroids.run_id, model_id, cluster_id, cosine)
