"""Clusters, one row for each run that has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import delete, func, insert, select, text
from sqlalchemy.orm import Session, defer

from catalog.errors import ClusterNotFound
from catalog.tables import (
    Cluster,
    ClusterMember,
    ClusterRun,
    Model,
    Revision,
    RunState,
    SpaceRow,
    Vector,
    cluster_number,
)

MAX_AVERAGED = 10_000  # members whose norms are averaged


@dataclass(frozen=True)
class Centroids:
    """The clusters of a run, for assigning models: ids (c,), unit centroids float32 (c, d), radii (c,), sizes (c,)."""

    run_id: int
    cluster_ids: list[int]
    centroids: np.ndarray
    radius: np.ndarray
    sizes: np.ndarray


def allocate_ids(session: Session, count: int) -> list[int]:
    """`count` new cluster ids."""
    if not count:
        return []
    statement = select(cluster_number.next_value()).select_from(func.generate_series(1, count))
    return list(session.scalars(statement))


def store(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        session.execute(insert(Cluster), list(rows))


def list_page(
    session: Session, run_id: int, *, after: tuple[float, int] | None = None, limit: int | None
) -> list[tuple[Cluster, str]]:
    """Up to `limit` clusters of a run, the largest first, after a (size, cluster id), without their centroids. Each has
    the repo id of its medoid.
    """
    statement = (
        select(Cluster, Model.repo_id)
        .options(defer(Cluster.centroid))
        .join(Model, Model.id == Cluster.medoid_id)
        .where(Cluster.run_id == run_id)
        .order_by(Cluster.size.desc(), Cluster.cluster_id)
        .limit(limit)
    )
    if after is not None:
        size, cluster_id = after
        tie = (Cluster.size == size) & (Cluster.cluster_id > cluster_id)
        statement = statement.where((Cluster.size < size) | tie)
    return [(cluster, medoid) for cluster, medoid in session.execute(statement)]


def list_names(session: Session, run_id: int) -> list[tuple[int, str, int]]:
    """The id, name and size of each cluster of a run, the largest first."""
    statement = select(Cluster.cluster_id, Cluster.name, Cluster.size).where(Cluster.run_id == run_id)
    rows = session.execute(statement.order_by(Cluster.size.desc(), Cluster.cluster_id))
    return [(cluster_id, name, size) for cluster_id, name, size in rows]


def get(session: Session, cluster_id: int, run_id: int | None = None) -> tuple[Cluster, ClusterRun, str]:
    """A cluster in the given run, by default in the newest run that has it, with that run and the medoid's repo id.

    Raises `ClusterNotFound`.
    """
    statement = (
        select(Cluster, ClusterRun, Model.repo_id)
        .join(ClusterRun, ClusterRun.id == Cluster.run_id)
        .join(Model, Model.id == Cluster.medoid_id)
        .where(Cluster.cluster_id == cluster_id, ClusterRun.state == RunState.DONE)
        .order_by(Cluster.run_id.desc())
        .limit(1)
    )
    if run_id is not None:
        statement = statement.where(Cluster.run_id == run_id)
    row = session.execute(statement).one_or_none()
    if row is None:
        scope = f" in run {run_id}" if run_id is not None else ""
        raise ClusterNotFound(f"There is no cluster {cluster_id}{scope}. GET /v1/clusters lists the clusters.")
    return row[0], row[1], row[2]


def names_by_id(session: Session, run_id: int) -> dict[int, str]:
    """The names of the clusters of a run, by cluster id."""
    statement = select(Cluster.cluster_id, Cluster.name).where(Cluster.run_id == run_id)
    return {cluster_id: name for cluster_id, name in session.execute(statement)}


def get_centroids(session: Session, run_id: int) -> Centroids:
    """The centroids of a run, in the order of the cluster ids."""
    statement = select(Cluster.cluster_id, Cluster.centroid, Cluster.radius, Cluster.size)
    rows = session.execute(statement.where(Cluster.run_id == run_id).order_by(Cluster.cluster_id)).all()
    return Centroids(
        run_id,
        [row.cluster_id for row in rows],
        np.stack([np.frombuffer(row.centroid, "<f4") for row in rows]) if rows else np.empty((0, 0), np.float32),
        np.array([row.radius for row in rows]),
        np.array([row.size for row in rows], dtype=np.float64),
    )


@dataclass(frozen=True)
class CurrentCluster:
    """A cluster of a current run, its unit centroid float32 (d,), the mean norm of its members' vectors, and the mean
    of the inverse norms.
    """

    cluster: Cluster
    space: SpaceRow
    centroid: np.ndarray
    mean_norm: float
    mean_inverse: float


def find_current(session: Session, *, cluster_id: int | None = None, name: str | None = None) -> list[CurrentCluster]:
    """The clusters with this id or name in the current runs of all spaces, with the means of at most `MAX_AVERAGED`
    members.
    """
    averaged = (
        select(ClusterMember.model_id)
        .where(ClusterMember.run_id == Cluster.run_id, ClusterMember.cluster_id == Cluster.cluster_id)
        .correlate(Cluster)
        .order_by(ClusterMember.model_id)
        .limit(MAX_AVERAGED)
        .lateral()
    )
    members = (
        select(func.avg(Vector.norm).label("norm"), func.avg(1 / Vector.norm).label("inverse"))
        .select_from(averaged)
        .join(Vector, Vector.model_id == averaged.c.model_id)
        .join(Revision, Revision.id == Vector.revision_id)
        .where(Vector.space_id == SpaceRow.id, Revision.current, ~Vector.deleted, ~Vector.no_shift)
        .lateral()
    )
    statement = (
        select(Cluster, SpaceRow, members.c.norm, members.c.inverse)
        .join(ClusterRun, ClusterRun.id == Cluster.run_id)
        .join(SpaceRow, SpaceRow.id == ClusterRun.space_id)
        .join(members, members.c.norm.is_not(None))  # null if all members were removed since the run
        .where(ClusterRun.current, Cluster.cluster_id == cluster_id if cluster_id is not None else Cluster.name == name)
        .order_by(Cluster.cluster_id)
    )
    return [
        CurrentCluster(cluster, space, np.frombuffer(cluster.centroid, "<f4"), norm, inverse)
        for cluster, space, norm, inverse in session.execute(statement)
    ]


def list_current_names(session: Session, limit: int) -> list[str]:
    """The names of the largest clusters in the current runs of all spaces."""
    statement = select(Cluster.name).join(ClusterRun, ClusterRun.id == Cluster.run_id).where(ClusterRun.current)
    return list(session.scalars(statement.order_by(Cluster.size.desc()).limit(limit)))


_DELETE_MEMBERS = text("""
    DELETE FROM cluster_members WHERE (run_id, model_id) IN (
        SELECT run_id, model_id FROM cluster_members WHERE run_id = :run_id ORDER BY model_id LIMIT :limit
    )
""")


def list_obsolete(session: Session, space_id: int, keep: int) -> list[int]:
    """The runs that have clusters and ended before the `keep` newest that are done, or failed."""
    done = select(ClusterRun.id).where(ClusterRun.space_id == space_id, ClusterRun.state == RunState.DONE)
    kept = done.order_by(ClusterRun.id.desc()).limit(keep)
    ended = ClusterRun.state.in_((RunState.DONE, RunState.FAILED)) & ClusterRun.id.not_in(kept)
    has_clusters = select(Cluster.cluster_id).where(Cluster.run_id == ClusterRun.id).exists()
    has_members = select(ClusterMember.model_id).where(ClusterMember.run_id == ClusterRun.id).exists()
    statement = select(ClusterRun.id).where(ClusterRun.space_id == space_id, ended, has_clusters | has_members)
    return list(session.scalars(statement.order_by(ClusterRun.id)))


def delete_page(session: Session, run_id: int, limit: int) -> bool:
    """Delete up to `limit` members of a run, and its clusters with the last of them. The row of the run stays, with its
    metrics. True if there may be more.
    """
    deleted = session.execute(_DELETE_MEMBERS, {"run_id": run_id, "limit": limit}).rowcount  # type: ignore[attr-defined]
    if deleted == limit:
        return True
    session.execute(delete(Cluster).where(Cluster.run_id == run_id))
    return False
