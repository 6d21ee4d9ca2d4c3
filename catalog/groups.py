"""Clusters as the rest of the catalog sees them: asked for, looked at, and found for a model that arrives."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from sqlalchemy.orm import Session

from catalog import refits
from catalog.clustering.fitting import place, widened
from catalog.clustering.parameters import Parameters
from catalog.clustering.quality import adjusted_rand
from catalog.database import Database, after_commit
from catalog.errors import NotClustered
from catalog.queue import CLUSTERS_FIT, ring_fit
from catalog.repository import cluster_members, cluster_runs, clusters, models, spaces
from catalog.repository.clusters import Centroids
from catalog.tables import Cluster, ClusterMember, ClusterRun, SpaceRow
from catalog.viewers import PUBLIC, Viewer

CLOSEST = 10  # members shown with a cluster


@dataclass(frozen=True)
class Overview:
    """The clusters of a run, the largest first, each with its medoid's repo id."""

    run: ClusterRun
    space: SpaceRow
    clusters: list[tuple[Cluster, str]]


@dataclass(frozen=True)
class Detail:
    """A cluster as one run found it, with its medoid's repo id and its closest members with theirs."""

    cluster: Cluster
    run: ClusterRun
    medoid: str
    closest: list[tuple[ClusterMember, str]]


@dataclass(frozen=True)
class Comparison:
    """Two runs over the models that both clustered: their adjusted Rand index, and the clusters that both have."""

    run: ClusterRun
    other: ClusterRun
    models: int
    adjusted_rand: float | None
    kept: list[int]


def shown(session: Session, space_key: str | None) -> tuple[ClusterRun, SpaceRow]:
    """The run that is shown of a space, by default of the newest that has one.

    Raises `NotClustered` and `SpaceNotFound`.
    """
    if space_key is None:
        found = cluster_runs.newest_current(session)
    else:
        space = spaces.get(session, space_key)
        run = cluster_runs.current(session, space.id)
        found = (run, space) if run is not None else None
    if found is None:
        raise NotClustered(
            "No clusters have been found here yet. They are looked for once enough models are in; an admin can ask "
            "for them with POST /v1/admin/clusters or `deltadex clusters fit`."
        )
    return found


def overview(database: Database, space_key: str | None = None) -> Overview:
    """Raises `NotClustered` and `SpaceNotFound`."""
    with database.transaction() as session:
        run, space = shown(session, space_key)
        return Overview(run, space, clusters.of_run(session, run.id))


def detail(database: Database, cluster_id: int, run_id: int | None = None) -> Detail:
    """Raises `ClusterNotFound`."""
    with database.transaction() as session:
        cluster, run, medoid = clusters.newest(session, cluster_id, run_id)
        return Detail(cluster, run, medoid, cluster_members.page(session, run.id, cluster_id, limit=CLOSEST))


def of_model(
    database: Database, repo_id: str, space_key: str | None = None, viewer: Viewer = PUBLIC
) -> cluster_members.Placement:
    """Where a model is; a private one is in no cluster. Raises `ModelNotFound`, `NotClustered`, `SpaceNotFound`."""
    with database.transaction() as session:
        model = models.get(session, repo_id, viewer)
        run, _ = shown(session, space_key)
        found = cluster_members.placement(session, run.id, model.id)
    if found is None and model.private:
        raise NotClustered(f"{repo_id} is private: no cluster is made of what some keys alone may see.")
    if found is None:
        raise NotClustered(f"{repo_id} is not among the clusters of that space: it has no vector there, or no shift.")
    return found


def ask(database: Database, parameters: Parameters, space_key: str | None = None) -> tuple[ClusterRun, SpaceRow]:
    """A run for a space (by default the newest of the preferred feature); the one that waits or works is given again.

    Raises `SpaceNotFound`.
    """
    with database.transaction() as session:
        space = spaces.get(session, space_key) if space_key else spaces.newest(session)
        run, _ = cluster_runs.ask(
            session,
            space.id,
            algorithm=parameters.algorithm,
            parameters=parameters.as_dict(),
            asked_by="admin",
        )
        after_commit(session, lambda: ring_fit(CLUSTERS_FIT, space.id))
    return run, space


def compare(database: Database, run_id: int, other_id: int) -> Comparison:
    """Raises `RunNotFound`."""
    with database.transaction() as session:
        run, other = cluster_runs.get(session, run_id), cluster_runs.get(session, other_id)
        cells = cluster_members.table(session, run_id, other_id)
    rows, columns = sorted({a for a, _, _ in cells}), sorted({b for _, b, _ in cells})
    table = np.zeros((len(rows), len(columns)), np.int64)
    for a, b, count in cells:
        table[rows.index(a), columns.index(b)] = count
    index = adjusted_rand(table) if cells else None
    return Comparison(run, other, int(table.sum()), index, [each for each in rows if each in columns and each >= 0])


def ring_for_due(database: Database, policy: refits.Policy) -> list[int]:
    """Ask for runs of the spaces that changed enough, and ring for all that wait. Returns the spaces rung for."""
    with database.transaction() as session:
        covered = cluster_runs.covered(session, rest=refits.REST, after_failure=refits.AFTER_FAILURE)
        default = Parameters()
        for space_id in refits.due(session, policy, covered):
            cluster_runs.ask(
                session,
                space_id,
                algorithm=default.algorithm,
                parameters=default.as_dict(),
                asked_by="changes",
            )
        waiting = [run.space_id for run in cluster_runs.waiting(session)]
    for space_id in waiting:
        ring_fit(CLUSTERS_FIT, space_id)
    return waiting


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
