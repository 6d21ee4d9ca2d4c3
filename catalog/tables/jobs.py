"""Jobs, their events, the workers that run them, and paused queues."""

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
    """The class of a job by its origin. Smaller numbers are claimed first; for the exceptions see
    `catalog.jobs.repository.claims`.
    """

    USER = 0
    WEBHOOK = 1
    CRAWL = 2


RUNNING = (JobState.FETCHING, JobState.ENCODING)
ACTIVE = (JobState.QUEUED, *RUNNING)
TERMINAL = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


def _quoted(states: tuple[JobState, ...]) -> str:
    return ", ".join(f"'{state}'" for state in states)


class Worker(Base):
    """A worker process. When its heartbeat times out, its jobs are queued again."""

    __tablename__ = "workers"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    device: Mapped[str]
    process: Mapped[str | None]  # its `catalog.jobs.processes.identity`
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=func.now())
    stopped_at: Mapped[datetime | None]
    status: Mapped[dict] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))  # as of the last heartbeat
    loading_repo: Mapped[str | None]  # the base that it is loading into memory, and its commit
    loading_sha: Mapped[str | None]


class Job(Base):
    """A unit of work on one model. The row is authoritative; a Celery message is only a notification that it exists."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(one_of("state", JobState), name="state"),
        CheckConstraint("progress BETWEEN 0 AND 1", name="progress"),
        CheckConstraint(
            f"token IS NULL OR (viewer IS NOT NULL AND token_at IS NOT NULL AND state IN ({_quoted(ACTIVE)}))",
            name="token",
        ),
        CheckConstraint(f"priority IN ({', '.join(str(int(priority)) for priority in Priority)})", name="priority"),
        Index(
            "uq_jobs_active",
            "model_id",
            text("coalesce(requested_revision, '')"),
            text("coalesce(reindex_id, 0)"),
            text("coalesce(requested_base, '')"),
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
    requested_base: Mapped[str | None]  # the base model that the submission named
    sha: Mapped[str | None]  # the commit that it measures, once that is known
    state: Mapped[str] = mapped_column(server_default=JobState.QUEUED)
    progress: Mapped[float] = mapped_column(server_default=text("0"))
    priority: Mapped[int] = mapped_column(server_default=text("0"))  # a `Priority`
    viewer: Mapped[str | None]  # the only submitter that may see the job; null: public
    token: Mapped[bytes | None] = mapped_column(LargeBinary)  # the submitter's Hub token, sealed; deleted at the end
    token_at: Mapped[datetime | None]  # when the token was submitted
    submitter: Mapped[str | None]  # the hash of the key whose quota the job counts toward; null: no quota
    exclusive: Mapped[bool] = mapped_column(server_default=text("false"))  # runs with nothing else on its worker
    reindex_id: Mapped[int | None] = mapped_column(ForeignKey("reindexes.id", ondelete="SET NULL"))
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    worker_deaths: Mapped[int] = mapped_column(server_default=text("0"))  # workers that died while they ran it
    history: Mapped[list[dict]] = mapped_column(JSONB, server_default=text("'[]'::jsonb"))  # an entry per ended attempt
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    base_hint: Mapped[str | None]  # jobs of the same base are claimed together
    worker_id: Mapped[int | None] = mapped_column(ForeignKey("workers.id", ondelete="SET NULL"), index=True)
    available_at: Mapped[datetime] = mapped_column(server_default=func.now())
    enqueued_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())

    model: Mapped[Model] = relationship(lazy="joined", innerjoin=True)

    @property
    def remeasures(self) -> bool:
        """Whether the job measures an indexed revision again for a reindex. A reindex job of a model without a current
        revision is an ordinary job.
        """
        return self.reindex_id is not None and self.requested_revision is not None


class JobEvent(Base):
    """A change of a job's state or progress, with the values after it; written by a trigger on `jobs`.

    Ordered by (`tx`, `id`): readers only see the events of transactions older than every running one, so no event can
    be committed later with a smaller position.
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
    """A queue from which nothing is claimed."""

    __tablename__ = "paused_queues"

    name: Mapped[str] = mapped_column(primary_key=True)
    paused_at: Mapped[datetime] = mapped_column(server_default=func.now())
