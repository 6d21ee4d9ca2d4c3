"""Clusters as the rest of the catalog sees them: asked for, looked at, and found for a model that arrives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sqlalchemy.orm import Session

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.clusters.parameters import Parameters
from catalog.clusters.quality import adjusted_rand
from catalog.clusters.repository import clusters
from catalog.clusters.repository import members as cluster_members
from catalog.clusters.repository import runs as cluster_runs
from catalog.clusters.repository.members import Placement
from catalog.database import Database, after_commit
from catalog.errors import NotClustered
from catalog.models.repository import models
from catalog.queue import CLUSTERS_FIT, ring_fit
from catalog.spaces import repository as spaces
from catalog.tables import Cluster, ClusterMember, ClusterRun, SpaceRow
from catalog.vectors import refresh_policy

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


def members(
    database: Database,
    cluster_id: int,
    run_id: int | None = None,
    *,
    after: tuple[float, int] | None,
    limit: int,
) -> tuple[ClusterRun, list[tuple[ClusterMember, str]]]:
    """The run that the members are of, and up to `limit` of these with their repo ids, the closest to the centroid
    first. Raises `ClusterNotFound`.
    """
    with database.transaction() as session:
        _, run, _ = clusters.newest(session, cluster_id, run_id)
        return run, cluster_members.page(session, run.id, cluster_id, after=after, limit=limit)


def runs(
    database: Database, space_key: str | None = None, *, before: int | None, limit: int
) -> list[tuple[ClusterRun, str]]:
    """Up to `limit` runs with an id below `before`, the newest first, each with its space's key. Raises
    `SpaceNotFound`.
    """
    with database.transaction() as session:
        space_id = spaces.get(session, space_key).id if space_key else None
        return cluster_runs.page(session, space_id=space_id, before=before, limit=limit)


def run(database: Database, run_id: int) -> tuple[ClusterRun, str]:
    """A run, and its space's key. Raises `RunNotFound`."""
    with database.transaction() as session:
        found = cluster_runs.get(session, run_id)
        return found, session.get_one(SpaceRow, found.space_id).key


def of_model(database: Database, repo_id: str, space_key: str | None = None, viewer: Viewer = PUBLIC) -> Placement:
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


def ring_for_due(database: Database, policy: refresh_policy.Policy) -> list[int]:
    """Ask for runs of the spaces that changed enough, and ring for all that wait. Returns the spaces rung for."""
    with database.transaction() as session:
        covered = cluster_runs.covered(session, rest=refresh_policy.REST, after_failure=refresh_policy.AFTER_FAILURE)
        default = Parameters()
        for space_id in refresh_policy.due(session, policy, covered):
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
