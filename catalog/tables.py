"""The tables. Vectors and activations are little-endian float32 bytes whose length the database checks."""

from __future__ import annotations

from datetime import datetime
from enum import IntEnum, StrEnum

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    Sequence,
    String,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class JobState(StrEnum):
    QUEUED = "queued"
    FETCHING = "fetching"
    ENCODING = "encoding"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Priority(IntEnum):
    """Whose wish a job is: what has the smaller number is claimed first (`repository/claims.py` says how far)."""

    PERSON = 0
    WEBHOOK = 1
    CRAWL = 2


class ModelState(StrEnum):
    PENDING = "pending"  # submitted, nothing stored yet
    INDEXED = "indexed"
    NO_SHIFT = "no_shift"  # embedded, but its norm is under the noise floor
    FAILED = "failed"
    REMOVED = "removed"  # deleted on the Hub, or private there now: known by name, in no index


class Source(StrEnum):
    HUB = "hub"
    FOLDER = "folder"


class RunState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


RUNNING = (JobState.FETCHING, JobState.ENCODING)
ACTIVE = (JobState.QUEUED, *RUNNING)


def one_of(column: str, values: type[StrEnum]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


def _quoted(states: tuple[JobState, ...]) -> str:
    return ", ".join(f"'{state}'" for state in states)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: DateTime(timezone=True), int: BigInteger, str: Text}  # noqa: RUF012


# numbers the change feed; drawn under an advisory lock, see repository/vectors.py
change_seq = Sequence("change_seq", metadata=Base.metadata, start=1)

# numbers clusters, over all spaces; a cluster keeps its number from run to run while most of its members do
cluster_number = Sequence("cluster_number", metadata=Base.metadata, start=1)

# counts claims over all workers: some of them go to the job that has waited longest, see repository/claims.py
claim_turn = Sequence("claim_turn", metadata=Base.metadata, start=1)


class SpaceRow(Base):
    """One embedding contract (`catalog.spaces.Space`) and what was measured of it."""

    __tablename__ = "spaces"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), unique=True)
    feature: Mapped[str]
    layer: Mapped[int]
    base_repo: Mapped[str | None]
    base_sha: Mapped[str | None]
    probe_set: Mapped[str] = mapped_column(String(64))
    dtype: Mapped[str]
    encoder_version: Mapped[str]
    dimension: Mapped[int]
    build_after: Mapped[datetime | None]  # the next build of its index does not start before
    build_error: Mapped[str | None]  # how the last one failed
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class BaseActivations(Base):
    """What a base itself answers to each probe, float32 (probes, dimension), and how far its vector moves when
    nothing but the batch's shape changes (`noise_floor`, a norm). The base is part of the key because the space of
    `delta_meaning` spans many bases.
    """

    __tablename__ = "base_activations"
    __table_args__ = (CheckConstraint("octet_length(data) = 4 * probes * dimension", name="length"),)

    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id", ondelete="CASCADE"), primary_key=True)
    base_repo: Mapped[str] = mapped_column(primary_key=True)
    base_sha: Mapped[str] = mapped_column(primary_key=True)
    noise_floor: Mapped[float]
    probes: Mapped[int]
    dimension: Mapped[int]
    data: Mapped[bytes] = mapped_column(LargeBinary)


class Model(Base):
    """A fine-tune by its name: a repo on the Hub, or a folder under the owner `local`.

    What searches filter by stands here and in the current revision; `seq` is the feed's number of its last change.
    """

    __tablename__ = "models"
    __table_args__ = (
        CheckConstraint(one_of("source", Source), name="source"),
        CheckConstraint(one_of("state", ModelState), name="state"),
        Index(None, "owner", "id"),
        Index(None, "state", "id"),
        Index(None, "words", postgresql_using="gin"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    repo_id: Mapped[str] = mapped_column(unique=True)
    owner: Mapped[str]
    source: Mapped[str]
    folder: Mapped[str | None]
    state: Mapped[str] = mapped_column(server_default=ModelState.PENDING)
    licence: Mapped[str | None]
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'::text[]"))
    downloads: Mapped[int | None]
    likes: Mapped[int | None]
    datasets: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'::text[]"))
    languages: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'::text[]"))
    hub_created_at: Mapped[datetime | None]
    hub_updated_at: Mapped[datetime | None]
    hub_id: Mapped[str | None] = mapped_column(index=True)  # the Hub's own, which outlives a rename
    hub_sha: Mapped[str | None]  # the newest commit that a crawl or the webhook told of, embedded or not
    cluster: Mapped[int | None]  # what searches filter by, see catalog/groups.py
    card: Mapped[str | None]  # the words of its card, at most `workers.encoding.card.MAX_WORDS` characters
    words: Mapped[str] = mapped_column(
        TSVECTOR, Computed("model_words(repo_id, tags, card)", persisted=True), deferred=True
    )  # what its text is searched by, see catalog/words.py
    seq: Mapped[int | None] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())

    revision: Mapped[Revision | None] = relationship(
        primaryjoin="and_(Model.id == Revision.model_id, Revision.current)", viewonly=True, uselist=False
    )


class Revision(Base):
    """One commit of a model (a folder's content hash stands in for a commit). One of a model's is current."""

    __tablename__ = "revisions"
    __table_args__ = (
        UniqueConstraint("model_id", "sha"),
        Index("uq_revisions_current", "model_id", unique=True, postgresql_where=text("current")),
        Index(None, "base_repo", "model_id", postgresql_where=text("current")),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"))
    sha: Mapped[str]
    current: Mapped[bool]
    kind: Mapped[str]
    base_repo: Mapped[str]
    base_sha: Mapped[str]
    base_evidence: Mapped[dict] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Vector(Base):
    """A revision's embedding in one space: float32 (dimension,), not normalised."""

    __tablename__ = "vectors"
    __table_args__ = (
        UniqueConstraint("space_id", "revision_id"),
        CheckConstraint("octet_length(data) = 4 * dimension", name="length"),
        Index(None, "model_id", "space_id", "seq"),
        Index(None, "space_id", "seq"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id"))
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    revision_id: Mapped[int] = mapped_column(ForeignKey("revisions.id"), index=True)
    seq: Mapped[int] = mapped_column(unique=True)
    dimension: Mapped[int]
    data: Mapped[bytes] = mapped_column(LargeBinary)
    norm: Mapped[float]
    no_shift: Mapped[bool]
    explanation: Mapped[dict | None] = mapped_column(JSONB)  # tokens that the shift promotes and suppresses
    deleted: Mapped[bool] = mapped_column(server_default=text("false"))  # a tombstone in the change feed
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Worker(Base):
    """A worker process. A heartbeat that stopped means that its jobs run again elsewhere."""

    __tablename__ = "workers"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    device: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=func.now())
    stopped_at: Mapped[datetime | None]
    status: Mapped[dict] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))  # `workers.report`, as it last beat


class Job(Base):
    """One wish to have a model embedded. Postgres is the truth; a Celery message is only a doorbell."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(one_of("state", JobState), name="state"),
        CheckConstraint("progress BETWEEN 0 AND 1", name="progress"),
        CheckConstraint(f"priority IN ({', '.join(str(int(each)) for each in Priority)})", name="priority"),
        Index(
            "uq_jobs_active",
            "model_id",
            text("coalesce(requested_revision, '')"),
            unique=True,
            postgresql_where=text(f"state IN ({_quoted(ACTIVE)})"),
        ),
        Index(
            "ix_jobs_queued",
            text("coalesce(base_hint, '')"),
            "priority",
            "available_at",
            postgresql_where=text("state = 'queued'"),
        ),
        Index("ix_jobs_turn", "priority", "available_at", postgresql_where=text("state = 'queued'")),
        Index("ix_jobs_due", "available_at", postgresql_where=text("state = 'queued'")),
        Index("ix_jobs_running", "worker_id", postgresql_where=text(f"state IN ({_quoted(RUNNING)})")),
        Index("ix_jobs_submitter", "submitter", postgresql_where=text(f"state IN ({_quoted(ACTIVE)})")),
        Index("ix_jobs_failed", "error_code", "id", postgresql_where=text("state = 'failed'")),
        Index(None, "state", "id"),
        Index(None, "model_id", "id"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"))
    requested_revision: Mapped[str | None]
    sha: Mapped[str | None]
    state: Mapped[str] = mapped_column(server_default=JobState.QUEUED)
    progress: Mapped[float] = mapped_column(server_default=text("0"))
    priority: Mapped[int] = mapped_column(server_default=text("0"))  # a `Priority`
    submitter: Mapped[str | None]  # whose quota counts it: `anonymous` or a key's hash; null counts nowhere
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    deaths: Mapped[int] = mapped_column(server_default=text("0"))  # workers that died while they had it
    history: Mapped[list[dict]] = mapped_column(JSONB, server_default=text("'[]'::jsonb"))  # attempts that ended
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    base_hint: Mapped[str | None]  # jobs of the same base are claimed together
    worker_id: Mapped[int | None] = mapped_column(ForeignKey("workers.id"))
    available_at: Mapped[datetime] = mapped_column(server_default=func.now())
    rung_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())

    model: Mapped[Model] = relationship(lazy="joined", innerjoin=True)


class JobEvent(Base):
    """What a job had become when a transaction changed its state or progress; a trigger on `jobs` writes it.

    Numbered by (`tx`, `id`): readers take only what transactions wrote that are older than every running one, so
    nothing can be committed later under a smaller number.
    """

    __tablename__ = "job_events"
    __table_args__ = (Index(None, "tx", "id"), Index(None, "job_id", "tx", "id"))

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    tx: Mapped[int] = mapped_column(server_default=text("pg_current_xact_id()::text::bigint"))
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    state: Mapped[str]
    progress: Mapped[float]
    attempts: Mapped[int]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    at: Mapped[datetime] = mapped_column(server_default=func.now())


class PausedQueue(Base):
    """A queue of which nothing is claimed for now."""

    __tablename__ = "paused_queues"

    name: Mapped[str] = mapped_column(primary_key=True)
    paused_at: Mapped[datetime] = mapped_column(server_default=func.now())


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
    asked_by: Mapped[str]  # "changes" or "admin"
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
    """A geometry fitted to a space's unit vectors (`catalog.geometry`), as an npz. The newest of a kind is in use."""

    __tablename__ = "geometries"
    __table_args__ = (Index(None, "space_id", "kind", "id"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id", ondelete="CASCADE"))
    kind: Mapped[str]
    models: Mapped[int]
    data: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


# tables of the same metadata that have files of their own
from catalog import crawl_tables, words  # noqa: E402, F401
