"""Tables of indexes, clusters, maps and geometries: they are computed from a space's vectors and can be recomputed."""

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
    """A published main segment of a space's index: its folder, and the changes that it covers."""

    __tablename__ = "index_snapshots"
    __table_args__ = (UniqueConstraint("space_id", "generation"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id", ondelete="CASCADE"))
    generation: Mapped[int]
    covered_seq: Mapped[int]
    vectors: Mapped[int]
    kind: Mapped[str]
    path: Mapped[str]
    sha256: Mapped[str] = mapped_column(String(64))  # of the manifest, which holds the digests of the other files
    recall: Mapped[float]
    broken: Mapped[str | None]  # why an API process could not load its files
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ClusterRun(Base):
    """A clustering of a space, requested or finished, with its parameters and quality metrics.

    One run of each space is `current`: the one that is shown, and whose clusters new models are assigned to.
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
    stage: Mapped[str | None]  # its current step while it runs
    current: Mapped[bool] = mapped_column(server_default=text("false"))
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    requested_by: Mapped[str]  # "changes", "admin" or "reindex"
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
    metrics: Mapped[dict | None] = mapped_column(JSONB)  # the reduction, the sample size of each metric, ...
    seconds: Mapped[float | None]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Cluster(Base):
    """A cluster of one run. `cluster_id` identifies it across runs.

    `centroid` is the normalized mean of its members' normalized vectors, float32 (d,). A new model is assigned to the
    cluster if its distance (1 - cosine) to the centroid is at most `radius`.
    """

    __tablename__ = "clusters"
    __table_args__ = (
        CheckConstraint("octet_length(centroid) = 4 * dimension", name="length"),
        Index(None, "cluster_id", "run_id"),
    )

    run_id: Mapped[int] = mapped_column(ForeignKey("cluster_runs.id", ondelete="CASCADE"), primary_key=True)
    cluster_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]
    medoid_id: Mapped[int] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), index=True)
    size: Mapped[int]
    cohesion: Mapped[float]  # mean cosine of the members to the centroid
    radius: Mapped[float]
    dimension: Mapped[int]
    centroid: Mapped[bytes] = mapped_column(LargeBinary)
    explanation: Mapped[dict] = mapped_column(JSONB)  # tokens, tags and words that distinguish it


class ClusterMember(Base):
    """The cluster of a model in a run; a null `cluster_id` means noise."""

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
    # the model arrived after the run and was assigned to the nearest cluster
    assigned_after_run: Mapped[bool] = mapped_column(server_default=text("false"))


class Map(Base):
    """A two-dimensional layout of a space. The newest map of a space is shown.

    `model_ids` is int64 (n,), ascending, `coordinates` float32 (n, 2), and `distortion` uint8 (n,): the share of a
    model's true neighbors that are far away on the map, in units of 1/255.
    """

    __tablename__ = "maps"
    __table_args__ = (
        CheckConstraint("octet_length(model_ids) = 8 * models", name="ids_length"),
        CheckConstraint("octet_length(coordinates) = 8 * models", name="coordinates_length"),
        CheckConstraint("octet_length(distortion) = models", name="distortion_length"),
        Index(None, "space_id", "id"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id", ondelete="CASCADE"))
    covered_seq: Mapped[int]  # the last change that it covers
    models: Mapped[int]
    model_ids: Mapped[bytes] = mapped_column(LargeBinary)
    coordinates: Mapped[bytes] = mapped_column(LargeBinary)
    distortion: Mapped[bytes] = mapped_column(LargeBinary)
    mean_distortion: Mapped[float | None]
    parameters: Mapped[dict] = mapped_column(JSONB)
    seconds: Mapped[float]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class MapAttempt(Base):
    """The attempts at a space's next map, which run or failed. A new map deletes the row."""

    __tablename__ = "map_attempts"

    space_id: Mapped[int] = mapped_column(
        ForeignKey("spaces.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    count: Mapped[int]  # since the last map
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    error_code: Mapped[str | None]  # of the last attempt; null while it runs, and after its process died
    error_message: Mapped[str | None]


class FittedGeometry(Base):
    """A geometry fitted to a space's unit vectors (`catalog.geometry.transforms`), stored as an npz file.

    In a space that spans bases it is fitted to the models of one `base_repo`. The newest of a kind and base is used.
    """

    __tablename__ = "geometries"
    __table_args__ = (Index(None, "space_id", "kind", "base_repo", "id"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id", ondelete="CASCADE"))
    kind: Mapped[str]
    base_repo: Mapped[str] = mapped_column(server_default="")  # empty: fitted to all models of the space
    models: Mapped[int]
    data: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
