"""What is computed from a space's vectors and can be computed again: indexes, clusters, maps, geometries."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    LargeBinary,
    String,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from catalog.tables.base import Base, one_of


class RunState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class IndexSnapshot(Base):
    """A published main segment of a space's index: which folder, and which changes it covers."""

    __tablename__ = "index_snapshots"
    __table_args__ = (UniqueConstraint("space_id", "generation"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id", ondelete="CASCADE"))
    generation: Mapped[int]
    covered_seq: Mapped[int]
    vectors: Mapped[int]
    kind: Mapped[str]
    path: Mapped[str]
    sha256: Mapped[str] = mapped_column(String(64))  # of the manifest, which holds those of the other files
    recall: Mapped[float]
    broken: Mapped[str | None]  # what an API process found wrong with its files
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ClusterRun(Base):
    """One clustering of a space, asked for or finished: how it was made and how good it is. One of a space's is
    `current`: the one that is shown, and that models which arrive are placed in.
    """

    __tablename__ = "cluster_runs"
    __table_args__ = (
        CheckConstraint(one_of("state", RunState), name="state"),
        Index("uq_cluster_runs_current", "space_id", unique=True, postgresql_where=text("current")),
        Index(
            "uq_cluster_runs_active",
            "space_id",
            unique=True,
            postgresql_where=text(f"state IN ('{RunState.QUEUED}', '{RunState.RUNNING}')"),
        ),
        Index(None, "space_id", "id"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id", ondelete="CASCADE"))
    state: Mapped[str] = mapped_column(server_default=RunState.QUEUED)
    stage: Mapped[str | None]  # what it is at while it runs
    current: Mapped[bool] = mapped_column(server_default=text("false"))
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    asked_by: Mapped[str]  # "changes", "admin" or "reindex"
    algorithm: Mapped[str]
    parameters: Mapped[dict] = mapped_column(JSONB)
    covered_seq: Mapped[int | None]
    models: Mapped[int | None]
    clusters: Mapped[int | None]
    sizes: Mapped[list[int] | None] = mapped_column(ARRAY(BigInteger))
    noise_share: Mapped[float | None]
    silhouette: Mapped[float | None]
    stability: Mapped[float | None]  # adjusted Rand index against `compared_with`
    compared_with: Mapped[int | None] = mapped_column(ForeignKey("cluster_runs.id", ondelete="SET NULL"))
    figures: Mapped[dict | None] = mapped_column(JSONB)  # the reduction, how many models each figure rests on, ...
    seconds: Mapped[float | None]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Cluster(Base):
    """A cluster as one run found it. `cluster_id` is its number across runs. `centroid` is the normalised mean of its
    members' normalised vectors, float32 (d,), and `radius` the distance (1 - cosine) to it that counts as inside.
    """

    __tablename__ = "clusters"
    __table_args__ = (
        CheckConstraint("octet_length(centroid) = 4 * dimension", name="length"),
        Index(None, "cluster_id", "run_id"),
    )

    run_id: Mapped[int] = mapped_column(ForeignKey("cluster_runs.id", ondelete="CASCADE"), primary_key=True)
    cluster_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]
    medoid_id: Mapped[int] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"))
    size: Mapped[int]
    cohesion: Mapped[float]  # mean cosine of the members to the centroid
    radius: Mapped[float]
    dimension: Mapped[int]
    centroid: Mapped[bytes] = mapped_column(LargeBinary)
    explanation: Mapped[dict] = mapped_column(JSONB)  # tokens, tags and words that set it apart


class ClusterMember(Base):
    """Where a run put a model: in a cluster, or in none (`cluster_id` is null)."""

    __tablename__ = "cluster_members"
    __table_args__ = (
        ForeignKeyConstraint(["run_id", "cluster_id"], ["clusters.run_id", "clusters.cluster_id"], ondelete="CASCADE"),
        Index(None, "run_id", "cluster_id", "similarity"),
        Index(None, "model_id"),
    )

    run_id: Mapped[int] = mapped_column(ForeignKey("cluster_runs.id", ondelete="CASCADE"), primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), primary_key=True)
    cluster_id: Mapped[int | None]
    similarity: Mapped[float | None]  # cosine to the centroid
    placed: Mapped[bool] = mapped_column(server_default=text("false"))  # came after the run, put with the nearest


class Map(Base):
    """A map of a space as it was drawn: the models int64 (n,), ascending, their places float32 (n, 2), and of each the
    share of its true neighbours that are far, uint8 (n,) in parts of 255. The newest of a space is the one shown.
    """

    __tablename__ = "maps"
    __table_args__ = (
        CheckConstraint("octet_length(model_ids) = 8 * models", name="ids_length"),
        CheckConstraint("octet_length(places) = 8 * models", name="places_length"),
        CheckConstraint("octet_length(distortion) = models", name="distortion_length"),
        Index(None, "space_id", "id"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id", ondelete="CASCADE"))
    covered_seq: Mapped[int]  # the last change that it holds
    models: Mapped[int]
    model_ids: Mapped[bytes] = mapped_column(LargeBinary)
    places: Mapped[bytes] = mapped_column(LargeBinary)
    distortion: Mapped[bytes] = mapped_column(LargeBinary)
    mean_distortion: Mapped[float | None]
    parameters: Mapped[dict] = mapped_column(JSONB)
    seconds: Mapped[float]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class MapAttempt(Base):
    """A drawing of a space's map that is under way or did not end well; one that does takes the row away."""

    __tablename__ = "map_attempts"

    space_id: Mapped[int] = mapped_column(
        ForeignKey("spaces.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    count: Mapped[int]  # since the last map
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    error_code: Mapped[str | None]  # of the last one; None while it runs, or when its process died
    error_message: Mapped[str | None]


class FittedGeometry(Base):
    """A geometry fitted to a space's unit vectors (`catalog.geometry.transforms`), as an npz; in a space that spans
    bases to those of one `base_repo`. The newest of a kind and base is in use.
    """

    __tablename__ = "geometries"
    __table_args__ = (Index(None, "space_id", "kind", "base_repo", "id"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id", ondelete="CASCADE"))
    kind: Mapped[str]
    base_repo: Mapped[str] = mapped_column(server_default="")  # empty: of all
    models: Mapped[int]
    data: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
