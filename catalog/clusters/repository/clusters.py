"""Clusters as runs found them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import delete, func, insert, select, text
from sqlalchemy.orm import Session

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


@dataclass(frozen=True)
class Centroids:
    """What a model is placed by: numbers (c,), unit centroids float32 (c, d), radii (c,) and sizes (c,) of a run."""

    run_id: int
    numbers: list[int]
    centroids: np.ndarray
    radius: np.ndarray
    sizes: np.ndarray


def numbers(session: Session, count: int) -> list[int]:
    """So many new clusters' numbers."""
    if not count:
        return []
    drawn = select(cluster_number.next_value()).select_from(func.generate_series(1, count))
    return list(session.scalars(drawn))


def store(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        session.execute(insert(Cluster), list(rows))


def of_run(session: Session, run_id: int) -> list[tuple[Cluster, str]]:
    """The clusters of a run, the largest first, each with the repo id of its medoid."""
    statement = (
        select(Cluster, Model.repo_id)
        .join(Model, Model.id == Cluster.medoid_id)
        .where(Cluster.run_id == run_id)
        .order_by(Cluster.size.desc(), Cluster.cluster_id)
    )
    return [(cluster, medoid) for cluster, medoid in session.execute(statement)]


def newest(session: Session, cluster_id: int, run_id: int | None = None) -> tuple[Cluster, ClusterRun, str]:
    """A cluster as that run found it, or else the last that had it, with the repo id of its medoid.

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
        where = f" in run {run_id}" if run_id is not None else ""
        raise ClusterNotFound(f"There is no cluster {cluster_id}{where}. GET /v1/clusters lists them.")
    return row[0], row[1], row[2]


def given_names(session: Session, run_id: int) -> dict[int, str]:
    """The names of a run's clusters by their numbers."""
    statement = select(Cluster.cluster_id, Cluster.name).where(Cluster.run_id == run_id)
    return {number: name for number, name in session.execute(statement)}


def centroids(session: Session, run_id: int) -> Centroids:
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
class Shown:
    """A cluster of a run that is shown, its unit centroid float32 (d,), and the means of its members' norms and of the
    inverses of these.
    """

    cluster: Cluster
    space: SpaceRow
    centroid: np.ndarray
    mean_norm: float
    mean_inverse: float


def shown(session: Session, *, number: int | None = None, name: str | None = None) -> list[Shown]:
    """The clusters of that number or name among those that are shown of all spaces."""
    members = (
        select(func.avg(Vector.norm).label("norm"), func.avg(1 / Vector.norm).label("inverse"))
        .join(Revision, Revision.id == Vector.revision_id)
        .join(ClusterMember, ClusterMember.model_id == Vector.model_id)
        .where(ClusterMember.run_id == Cluster.run_id, ClusterMember.cluster_id == Cluster.cluster_id)
        .where(Vector.space_id == SpaceRow.id, Revision.current, ~Vector.deleted, ~Vector.no_shift)
        .lateral()
    )
    statement = (
        select(Cluster, SpaceRow, members.c.norm, members.c.inverse)
        .join(ClusterRun, ClusterRun.id == Cluster.run_id)
        .join(SpaceRow, SpaceRow.id == ClusterRun.space_id)
        .join(members, members.c.norm.is_not(None))  # none where every member has left since
        .where(ClusterRun.current, Cluster.cluster_id == number if number is not None else Cluster.name == name)
        .order_by(Cluster.cluster_id)
    )
    return [
        Shown(cluster, space, np.frombuffer(cluster.centroid, "<f4"), norm, inverse)
        for cluster, space, norm, inverse in session.execute(statement)
    ]


def shown_names(session: Session) -> list[str]:
    """Of the clusters that are shown of all spaces."""
    statement = select(Cluster.name).join(ClusterRun, ClusterRun.id == Cluster.run_id).where(ClusterRun.current)
    return list(session.scalars(statement.distinct()))


def forget_all_but(session: Session, space_id: int, keep: int) -> None:
    """Drop the clusters and members of all but the `keep` newest runs; the runs themselves stay, with their figures."""
    done = select(ClusterRun.id).where(ClusterRun.space_id == space_id, ClusterRun.state == RunState.DONE)
    old = list(session.scalars(done.order_by(ClusterRun.id.desc()).offset(keep)))
    if old:
        session.execute(text("DELETE FROM cluster_members WHERE run_id = ANY(:runs)"), {"runs": old})
        session.execute(delete(Cluster).where(Cluster.run_id.in_(old)))
