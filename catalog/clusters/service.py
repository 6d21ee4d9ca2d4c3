"""Clusters and cluster runs: listing, comparing and requesting them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy.orm import Session

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.clusters.parameters import Parameters
from catalog.clusters.quality import adjusted_rand_of_cells
from catalog.clusters.repository import clusters
from catalog.clusters.repository import members as cluster_members
from catalog.clusters.repository import runs as cluster_runs
from catalog.clusters.repository.members import Assignment
from catalog.database import Database, after_commit
from catalog.errors import ClustersNotReady
from catalog.models.repository import models
from catalog.queue import CLUSTERS_FIT, enqueue_fit
from catalog.spaces import repository as spaces
from catalog.tables import Cluster, ClusterMember, ClusterRun, SpaceRow
from catalog.vectors import refresh_policy

CLOSEST_MEMBERS = 10  # members that are listed with a cluster


@dataclass(frozen=True)
class RunClusters:
    """Clusters of a run, largest first, each with the repo id of its medoid."""

    run: ClusterRun
    space: SpaceRow
    clusters: list[tuple[Cluster, str]]


@dataclass(frozen=True)
class ClusterDetail:
    """A cluster in one run, with the repo id of its medoid, and its closest members with their repo ids."""

    cluster: Cluster
    run: ClusterRun
    medoid: str
    closest: list[tuple[ClusterMember, str]]


@dataclass(frozen=True)
class RunComparison:
    """Two runs over the models that both clustered: their adjusted Rand index, and the clusters that both have."""

    run: ClusterRun
    other: ClusterRun
    models: int
    adjusted_rand: float | None
    shared_clusters: list[int]


def current_run(session: Session, space_key: str | None) -> tuple[ClusterRun, SpaceRow]:
    """The current run of a space, by default of the newest preferred space that has one.

    Raises `ClustersNotReady` and `SpaceNotFound`.
    """
    if space_key is None:
        current = cluster_runs.find_newest_current(session)
    else:
        space = spaces.get(session, space_key)
        run = cluster_runs.find_current(session, space.id)
        current = (run, space) if run is not None else None
    if current is None:
        raise ClustersNotReady(
            "There are no clusters yet. They are computed once there are enough models. An admin can request them "
            "with POST /v1/admin/clusters/runs or `deltadex clusters fit`."
        )
    return current


def list_clusters(
    database: Database,
    space_key: str | None = None,
    *,
    after: tuple[float, int] | None = None,
    limit: int | None = None,
) -> RunClusters:
    """Up to `limit` clusters of the current run of a space, after a (size, cluster id); by default all of them.

    Raises `ClustersNotReady` and `SpaceNotFound`.
    """
    with database.transaction() as session:
        run, space = current_run(session, space_key)
        return RunClusters(run, space, clusters.list_page(session, run.id, after=after, limit=limit))


def get_cluster(database: Database, cluster_id: int, run_id: int | None = None) -> ClusterDetail:
    """A cluster in the given run, by default in the newest run that has it. Raises `ClusterNotFound`."""
    with database.transaction() as session:
        cluster, run, medoid = clusters.get(session, cluster_id, run_id)
        closest = cluster_members.list_page(session, run.id, cluster_id, limit=CLOSEST_MEMBERS)
        return ClusterDetail(cluster, run, medoid, closest)


def list_members(
    database: Database,
    cluster_id: int,
    run_id: int | None = None,
    *,
    team_tags: Sequence[str] = (),
    after: tuple[float, int] | None,
    limit: int,
) -> tuple[ClusterRun, list[tuple[ClusterMember, str]]]:
    """The run, and up to `limit` members of a cluster in it with their repo ids, the closest to the centroid first.
    They have all of the team tags.

    Raises `ClusterNotFound`.
    """
    with database.transaction() as session:
        _, run, _ = clusters.get(session, cluster_id, run_id)
        page = cluster_members.list_page(session, run.id, cluster_id, team_tags=team_tags, after=after, limit=limit)
        return run, page


def list_runs(
    database: Database, space_key: str | None = None, *, before: int | None, limit: int
) -> list[tuple[ClusterRun, str]]:
    """Up to `limit` runs with an id below `before`, newest first, each with the key of its space.

    Raises `SpaceNotFound`.
    """
    with database.transaction() as session:
        space_id = spaces.get(session, space_key).id if space_key else None
        return cluster_runs.list_page(session, space_id=space_id, before=before, limit=limit)


def get_run(database: Database, run_id: int) -> tuple[ClusterRun, str]:
    """A run, and the key of its space. Raises `RunNotFound`."""
    with database.transaction() as session:
        run = cluster_runs.get(session, run_id)
        return run, session.get_one(SpaceRow, run.space_id).key


def get_assignment(
    database: Database, repo_id: str, space_key: str | None = None, viewer: Viewer = PUBLIC
) -> Assignment:
    """The cluster of a model in the current run. Private models are not clustered.

    Raises `ModelNotFound`, `ClustersNotReady` and `SpaceNotFound`.
    """
    with database.transaction() as session:
        model = models.get(session, repo_id, viewer)
        run, _ = current_run(session, space_key)
        assignment = cluster_members.find_assignment(session, run.id, model.id)
    if assignment is None and model.private:
        raise ClustersNotReady(f"{repo_id} is private, and private models are not clustered.")
    if assignment is None:
        raise ClustersNotReady(
            f"{repo_id} is not clustered: it has no vector in this space, or is indistinguishable from its base."
        )
    return assignment


def request_run(
    database: Database, parameters: Parameters, space_key: str | None = None
) -> tuple[ClusterRun, SpaceRow]:
    """Enqueue a run for a space (by default the newest space of the preferred feature), or return its active run.

    Raises `SpaceNotFound`.
    """
    with database.transaction() as session:
        space = spaces.get(session, space_key) if space_key else spaces.get_default(session)
        run, _ = cluster_runs.create(
            session,
            space.id,
            algorithm=parameters.algorithm,
            parameters=parameters.as_dict(),
            requested_by="admin",
        )
        after_commit(session, lambda: enqueue_fit(CLUSTERS_FIT, space.id))
    return run, space


def compare_runs(database: Database, run_id: int, other_id: int) -> RunComparison:
    """Compare two runs over the models that both clustered. Raises `RunNotFound`."""
    with database.transaction() as session:
        run, other = cluster_runs.get(session, run_id), cluster_runs.get(session, other_id)
        overlaps = cluster_members.count_overlaps(session, run_id, other_id)
    cells = np.array(overlaps, np.int64).reshape(-1, 3)
    rows, row = np.unique(cells[:, 0], return_inverse=True)
    columns, column = np.unique(cells[:, 1], return_inverse=True)
    index = adjusted_rand_of_cells(row, column, cells[:, 2]) if overlaps else None
    shared = np.intersect1d(rows[rows >= 0], columns)
    return RunComparison(run, other, int(cells[:, 2].sum()), index, shared.tolist())


def enqueue_due(database: Database, policy: refresh_policy.RefreshPolicy) -> list[int]:
    """Create runs for the spaces that are due by the refresh policy, and enqueue all runs that are not being computed.

    Returns the ids of the enqueued spaces.
    """
    with database.transaction() as session:
        covered = cluster_runs.list_refreshable(
            session, cooldown_factor=refresh_policy.COOLDOWN_FACTOR, retry_delay=refresh_policy.RETRY_DELAY
        )
        default = Parameters()
        for space_id in refresh_policy.list_due(session, policy, covered):
            cluster_runs.create(
                session,
                space_id,
                algorithm=default.algorithm,
                parameters=default.as_dict(),
                requested_by="changes",
            )
        space_ids = [run.space_id for run in cluster_runs.list_runnable(session)]
    for space_id in space_ids:
        enqueue_fit(CLUSTERS_FIT, space_id)
    return space_ids
