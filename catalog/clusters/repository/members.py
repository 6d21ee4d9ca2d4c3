"""Which models are in which cluster."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from catalog.tables import Cluster, ClusterMember, ClusterRun, Model, SpaceRow

_STORE = text("""
    INSERT INTO cluster_members (run_id, model_id, cluster_id, similarity)
    SELECT :run_id, * FROM unnest(cast(:models AS bigint[]), cast(:clusters AS bigint[]), cast(:cosines AS float8[]))
""")

# the numbers of the feed follow each other: whoever reads it reads these models' attributes again
_SHOW = text("""
    UPDATE models SET cluster = members.cluster_id, seq = nextval('change_seq')
    FROM cluster_members AS members
    WHERE members.run_id = :run_id AND members.model_id = models.id
        AND models.cluster IS DISTINCT FROM members.cluster_id
""")
_LEAVE = text("""
    UPDATE models SET cluster = NULL, seq = nextval('change_seq')
    WHERE cluster IN (
        SELECT clusters.cluster_id FROM clusters JOIN cluster_runs ON cluster_runs.id = clusters.run_id
        WHERE cluster_runs.space_id = :space_id
    ) AND NOT EXISTS (SELECT 1 FROM cluster_members WHERE run_id = :run_id AND model_id = models.id)
""")
_TOLD = text("""
    SELECT models.id, models.repo_id, models.tags, models.card, newest.norm, newest.explanation -> 'promoted' AS tokens
    FROM unnest(cast(:models AS bigint[])) AS wanted (id)
    JOIN models ON models.id = wanted.id
    CROSS JOIN LATERAL (
        SELECT norm, explanation FROM vectors
        WHERE model_id = wanted.id AND NOT deleted
        ORDER BY explanation IS NULL, space_id = :space_id DESC, seq DESC LIMIT 1
    ) AS newest
""")


@dataclass(frozen=True)
class Told:
    """What is stored of a model that may say what it is about; `tokens` as `workers` stored them."""

    model_id: int
    repo_id: str
    tags: list[str]
    card: str | None
    norm: float
    tokens: list[dict] | None


@dataclass(frozen=True)
class Placement:
    """Where a model is in the run that is shown: no cluster, or one with its cosine to the centroid."""

    run_id: int
    space_key: str
    cluster_id: int | None
    name: str | None
    similarity: float | None
    placed: bool


def store(
    session: Session, run_id: int, model_ids: np.ndarray, numbers: list[int | None], cosines: list[float | None]
) -> None:
    """Where a run put each of its models."""
    values = {"run_id": run_id, "models": model_ids.tolist(), "clusters": numbers, "cosines": cosines}
    session.execute(_STORE, values)


def place(session: Session, run_id: int, model_id: int, cluster_id: int | None, similarity: float | None) -> None:
    """Where a model goes that came after the run."""
    values = {"cluster_id": cluster_id, "similarity": similarity, "placed": True}
    statement = insert(ClusterMember).values(run_id=run_id, model_id=model_id, **values)
    session.execute(statement.on_conflict_do_update(index_elements=["run_id", "model_id"], set_=values))


def take_out(session: Session, run_id: int, model_id: int) -> None:
    session.execute(delete(ClusterMember).where(ClusterMember.run_id == run_id, ClusterMember.model_id == model_id))


def leave(session: Session, model_id: int) -> None:
    """Take a model out of every run."""
    session.execute(delete(ClusterMember).where(ClusterMember.model_id == model_id))


def show(session: Session, run_id: int, space_id: int) -> None:
    """Have searches filter by that run's clusters. The caller holds `vectors.lock_feed`."""
    session.execute(_SHOW, {"run_id": run_id})
    session.execute(_LEAVE, {"run_id": run_id, "space_id": space_id})


def told(session: Session, space_id: int, model_ids: list[int]) -> dict[int, Told]:
    """What is known of those models, in one statement."""
    rows = session.execute(_TOLD, {"models": model_ids, "space_id": space_id})
    return {row.id: Told(row.id, row.repo_id, row.tags, row.card, row.norm, row.tokens) for row in rows}


def labels(session: Session, run_id: int) -> tuple[np.ndarray, np.ndarray]:
    """The models (m,) that a run clustered itself, and their clusters' numbers (m,), -1 for none."""
    statement = select(ClusterMember.model_id, func.coalesce(ClusterMember.cluster_id, -1)).where(
        ClusterMember.run_id == run_id, ~ClusterMember.placed
    )
    found = np.array([tuple(row) for row in session.execute(statement)], dtype=np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def table(session: Session, run_id: int, other_id: int) -> list[tuple[int, int, int]]:
    """How many models two runs put where: (cluster of the one or -1, cluster of the other or -1, models)."""
    mine, theirs = aliased(ClusterMember), aliased(ClusterMember)
    statement = (
        select(func.coalesce(mine.cluster_id, -1), func.coalesce(theirs.cluster_id, -1), func.count())
        .join(theirs, theirs.model_id == mine.model_id)
        .where(mine.run_id == run_id, theirs.run_id == other_id, ~mine.placed, ~theirs.placed)
        .group_by(mine.cluster_id, theirs.cluster_id)
    )
    return [(a, b, count) for a, b, count in session.execute(statement)]


def page(
    session: Session, run_id: int, cluster_id: int, *, after: tuple[float, int] | None = None, limit: int
) -> list[tuple[ClusterMember, str]]:
    """Members with their repo ids, the closest to the centroid first, after a (similarity, model id)."""
    statement = (
        select(ClusterMember, Model.repo_id)
        .join(Model, Model.id == ClusterMember.model_id)
        .where(ClusterMember.run_id == run_id, ClusterMember.cluster_id == cluster_id)
        .order_by(ClusterMember.similarity.desc(), ClusterMember.model_id)
        .limit(limit)
    )
    if after is not None:
        similarity, model_id = after
        further = (ClusterMember.similarity == similarity) & (ClusterMember.model_id > model_id)
        statement = statement.where((ClusterMember.similarity < similarity) | further)
    return [(member, repo_id) for member, repo_id in session.execute(statement)]


def placement(session: Session, run_id: int, model_id: int) -> Placement | None:
    """None where the model was not there yet, or does not move its base."""
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
    return Placement(run_id, key, member.cluster_id, name, member.similarity, member.placed)
