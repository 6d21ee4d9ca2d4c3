"""The models of each cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from catalog.tables import Cluster, ClusterMember, ClusterRun, Model, RunState, SpaceRow, TeamTag

_STORE = text("""
    INSERT INTO cluster_members (run_id, model_id, cluster_id, similarity)
    SELECT :run_id, * FROM unnest(cast(:models AS bigint[]), cast(:clusters AS bigint[]), cast(:cosines AS float8[]))
""")

# models of these runs are removed one by one; a run that is being published removes them when it is current
_DONE = f"(SELECT id FROM cluster_runs WHERE state = '{RunState.DONE}')"
_DECREASE_SIZES = text(f"""
    UPDATE clusters SET size = greatest(size - leaving.count, 1)
    FROM (
        SELECT run_id, cluster_id, count(*) FROM cluster_members
        WHERE model_id = ANY(:models) AND cluster_id IS NOT NULL AND NOT assigned_after_run AND run_id IN {_DONE}
        GROUP BY run_id, cluster_id
    ) AS leaving
    WHERE clusters.run_id = leaving.run_id AND clusters.cluster_id = leaving.cluster_id
""")
_REMOVE = text(f"DELETE FROM cluster_members WHERE model_id = ANY(:models) AND run_id IN {_DONE}")
_REPLACE_MEDOIDS = text(f"""
    UPDATE clusters SET medoid_id = closest.model_id
    FROM clusters AS led CROSS JOIN LATERAL (
        SELECT model_id FROM cluster_members WHERE run_id = led.run_id AND cluster_id = led.cluster_id
        ORDER BY similarity DESC, model_id LIMIT 1
    ) AS closest
    WHERE led.medoid_id = ANY(:models) AND led.run_id IN {_DONE}
        AND clusters.run_id = led.run_id AND clusters.cluster_id = led.cluster_id
""")
_DELETE_EMPTY = text(f"""
    WITH emptied AS (DELETE FROM clusters WHERE medoid_id = ANY(:models) AND run_id IN {_DONE} RETURNING run_id)
    UPDATE cluster_runs SET clusters = clusters - counted.count
    FROM (SELECT run_id, count(*) FROM emptied GROUP BY run_id) AS counted WHERE cluster_runs.id = counted.run_id
""")
_MEMBER_TEXTS = text("""
    SELECT models.id, models.repo_id, models.tags, models.card, newest.norm, newest.explanation -> 'promoted' AS tokens
    FROM unnest(cast(:models AS bigint[])) AS requested (id)
    JOIN models ON models.id = requested.id
    CROSS JOIN LATERAL (
        SELECT norm, explanation FROM vectors
        WHERE model_id = requested.id AND NOT deleted
        ORDER BY explanation IS NULL, space_id = :space_id DESC, seq DESC LIMIT 1
    ) AS newest
""")


@dataclass(frozen=True)
class MemberText:
    """The texts that describe a model: its repo id, tags, card, and promoted tokens as the worker stored them."""

    model_id: int
    repo_id: str
    tags: list[str]
    card: str | None
    norm: float
    tokens: list[dict] | None


@dataclass(frozen=True)
class Assignment:
    """The cluster of a model in a run, with the model's cosine to the centroid. No `cluster_id`: it is noise."""

    run_id: int
    space_key: str
    cluster_id: int | None
    name: str | None
    similarity: float | None
    assigned_after_run: bool


def store(
    session: Session, run_id: int, model_ids: np.ndarray, cluster_ids: list[int | None], cosines: list[float | None]
) -> None:
    """Store the cluster of each model (n,) of a run."""
    values = {"run_id": run_id, "models": model_ids.tolist(), "clusters": cluster_ids, "cosines": cosines}
    session.execute(_STORE, values)


def assign(session: Session, run_id: int, model_id: int, cluster_id: int | None, similarity: float | None) -> None:
    """Store the cluster of a model that arrived after the run."""
    values = {"cluster_id": cluster_id, "similarity": similarity, "assigned_after_run": True}
    statement = insert(ClusterMember).values(run_id=run_id, model_id=model_id, **values)
    session.execute(statement.on_conflict_do_update(index_elements=["run_id", "model_id"], set_=values))


def remove(session: Session, run_id: int, model_id: int) -> None:
    """Remove a model from a run."""
    session.execute(delete(ClusterMember).where(ClusterMember.run_id == run_id, ClusterMember.model_id == model_id))


def remove_from_all_runs(session: Session, model_ids: Sequence[int]) -> None:
    """Remove models from every run that is done. If one was the medoid of a cluster, the closest member that is left
    is; a cluster without any is deleted.
    """
    parameters = {"models": list(model_ids)}
    session.execute(_DECREASE_SIZES, parameters)
    session.execute(_REMOVE, parameters)
    session.execute(_REPLACE_MEDOIDS, parameters)
    session.execute(_DELETE_EMPTY, parameters)


def remove_from_other_bases(session: Session, model_id: int, base_repo: str) -> None:
    """Remove a model from the current runs of the spaces of all bases but one."""
    other_runs = (
        select(ClusterRun.id)
        .join(SpaceRow, SpaceRow.id == ClusterRun.space_id)
        .where(ClusterRun.current, SpaceRow.base_repo != base_repo)
    )
    membership = (ClusterMember.model_id == model_id) & ClusterMember.run_id.in_(other_runs)
    session.execute(delete(ClusterMember).where(membership))


def get_member_texts(session: Session, space_id: int, model_ids: list[int]) -> dict[int, MemberText]:
    """The texts and tokens of these models, by model id."""
    rows = session.execute(_MEMBER_TEXTS, {"models": model_ids, "space_id": space_id})
    return {row.id: MemberText(row.id, row.repo_id, row.tags, row.card, row.norm, row.tokens) for row in rows}


def list_labels(session: Session, run_id: int) -> tuple[np.ndarray, np.ndarray]:
    """The models (m,) that a run clustered (without later arrivals), and their cluster ids (m,), -1 for noise."""
    statement = select(ClusterMember.model_id, func.coalesce(ClusterMember.cluster_id, -1)).where(
        ClusterMember.run_id == run_id, ~ClusterMember.assigned_after_run
    )
    rows = np.array([tuple(row) for row in session.execute(statement)], dtype=np.int64).reshape(-1, 2)
    return rows[:, 0], rows[:, 1]


def count_overlaps(session: Session, run_id: int, other_id: int) -> list[tuple[int, int, int]]:
    """The contingency table of two runs as (cluster of one, cluster of the other, models), with -1 for noise."""
    one, other = aliased(ClusterMember), aliased(ClusterMember)
    statement = (
        select(func.coalesce(one.cluster_id, -1), func.coalesce(other.cluster_id, -1), func.count())
        .join(other, other.model_id == one.model_id)
        .where(one.run_id == run_id, other.run_id == other_id, ~one.assigned_after_run, ~other.assigned_after_run)
        .group_by(one.cluster_id, other.cluster_id)
    )
    return [(a, b, count) for a, b, count in session.execute(statement)]


def list_page(
    session: Session,
    run_id: int,
    cluster_id: int,
    *,
    team_tags: Sequence[str] = (),
    after: tuple[float, int] | None = None,
    limit: int,
) -> list[tuple[ClusterMember, str]]:
    """Up to `limit` members that have all of the team tags, with their repo ids, the closest to the centroid first,
    after a (similarity, model id).
    """
    statement = (
        select(ClusterMember, Model.repo_id)
        .join(Model, Model.id == ClusterMember.model_id)
        .where(ClusterMember.run_id == run_id, ClusterMember.cluster_id == cluster_id)
        .where(*TeamTag.on_model(team_tags))
        .order_by(ClusterMember.similarity.desc(), ClusterMember.model_id)
        .limit(limit)
    )
    if after is not None:
        similarity, model_id = after
        tie = (ClusterMember.similarity == similarity) & (ClusterMember.model_id > model_id)
        statement = statement.where((ClusterMember.similarity < similarity) | tie)
    return [(member, repo_id) for member, repo_id in session.execute(statement)]


def find_assignment(session: Session, run_id: int, model_id: int) -> Assignment | None:
    """The cluster of a model in a run. None if the run does not have the model."""
    statement = (
        select(ClusterMember, Cluster.name, SpaceRow.key)
        .join(Cluster, (Cluster.run_id == run_id) & (Cluster.cluster_id == ClusterMember.cluster_id), isouter=True)
        .join(ClusterRun, ClusterRun.id == ClusterMember.run_id)
        .join(SpaceRow, SpaceRow.id == ClusterRun.space_id)
        .where(ClusterMember.run_id == run_id, ClusterMember.model_id == model_id)
    )
    row = session.execute(statement).one_or_none()
    if row is None:
        return None
    member, name, key = row
    return Assignment(run_id, key, member.cluster_id, name, member.similarity, member.assigned_after_run)
