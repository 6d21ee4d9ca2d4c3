"""Jobs, their events, and the workers that have them in hand."""

from __future__ import annotations

from datetime import datetime
from enum import IntEnum, StrEnum

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from catalog.tables.base import Base, one_of
from catalog.tables.models import Model


class JobState(StrEnum):
    QUEUED = "queued"
    FETCHING = "fetching"
    ENCODING = "encoding"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Priority(IntEnum):
    """Whose wish a job is: the smaller number is claimed first, as far as `catalog.jobs.repository.claims` says."""

    PERSON = 0
    WEBHOOK = 1
    CRAWL = 2


RUNNING = (JobState.FETCHING, JobState.ENCODING)
ACTIVE = (JobState.QUEUED, *RUNNING)
TERMINAL = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


def _quoted(states: tuple[JobState, ...]) -> str:
    return ", ".join(f"'{state}'" for state in states)


class Worker(Base):
    """A worker process. A heartbeat that stopped means that its jobs run again elsewhere."""

    __tablename__ = "workers"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    device: Mapped[str]
    process: Mapped[str | None]  # its `catalog.jobs.processes.identity`
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
        CheckConstraint(
            f"token IS NULL OR (viewer IS NOT NULL AND token_at IS NOT NULL AND state IN ({_quoted(ACTIVE)}))",
            name="token",
        ),
        CheckConstraint(f"priority IN ({', '.join(str(int(each)) for each in Priority)})", name="priority"),
        Index(
            "uq_jobs_active",
            "model_id",
            text("coalesce(requested_revision, '')"),
            text("coalesce(reindex_id, 0)"),
            unique=True,
            postgresql_where=text(f"state IN ({_quoted(ACTIVE)}) AND viewer IS NULL"),
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
        Index("ix_jobs_viewer", "viewer", "id", postgresql_where=text("viewer IS NOT NULL")),
        Index("ix_jobs_token_at", "token_at", postgresql_where=text("token IS NOT NULL")),
        Index("ix_jobs_failed", "error_code", "id", postgresql_where=text("state = 'failed'")),
        Index("ix_jobs_reindex", "reindex_id", "state", postgresql_where=text("reindex_id IS NOT NULL")),
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
    viewer: Mapped[str | None]  # the submitter that alone may see it, for it came with a token; null: everybody
    token: Mapped[bytes | None] = mapped_column(LargeBinary)  # of that submitter, sealed; gone once the job is over
    token_at: Mapped[datetime | None]  # when it came
    submitter: Mapped[str | None]  # whose quota counts it: `anonymous` or a key's hash; null counts nowhere
    alone: Mapped[bool] = mapped_column(server_default=text("false"))  # wants a worker with nothing else in its hands
    reindex_id: Mapped[int | None] = mapped_column(ForeignKey("reindexes.id", ondelete="SET NULL"))  # that it is of
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

    @property
    def measures_anew(self) -> bool:
        """Whether it measures a current revision for a reindex; where a model has none, its job is like any other."""
        return self.reindex_id is not None and self.requested_revision is not None


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
