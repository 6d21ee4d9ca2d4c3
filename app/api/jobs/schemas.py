"""JSON of jobs and workers."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, Field

from app.api.internals import message_for
from app.api.schemas import PageQuery
from catalog import tables
from catalog.auth.viewer import PUBLIC, Viewer
from catalog.tables import JobState

PRIORITIES: tuple[Literal["user", "webhook", "crawl"], ...] = ("user", "webhook", "crawl")  # index: `Priority`


class JobsQuery(PageQuery):
    state: JobState | None = None


class JobError(BaseModel):
    code: str
    message: str

    @classmethod
    def from_columns(
        cls, code: str | None, message: str | None, viewer: Viewer = PUBLIC, folder: str | None = None
    ) -> Self | None:
        return cls(code=code, message=message_for(viewer, code, message or "", folder)) if code else None


class Job(BaseModel):
    id: int
    repo_id: str
    revision: str | None = Field(description="The requested revision; null for the default branch.")
    base: str | None = Field(description="The base model that the submission named.")
    sha: str | None = Field(description="The commit that the job measures; null until it is known.")
    state: JobState
    priority: Literal["user", "webhook", "crawl"]
    progress: float = Field(ge=0, le=1)
    attempts: int
    error: JobError | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def from_row(cls, job: tables.Job, viewer: Viewer = PUBLIC) -> Self:
        error = JobError.from_columns(job.error_code, job.error_message, viewer, job.model.folder)
        return cls(
            id=job.id,
            repo_id=job.model.repo_id,
            revision=job.requested_revision,
            base=job.requested_base,
            sha=job.sha,
            state=JobState(job.state),
            priority=PRIORITIES[job.priority],
            progress=job.progress,
            attempts=job.attempts,
            error=error,
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
        )


class Jobs(BaseModel):
    jobs: list[Job]
    next_cursor: str | None


class Worker(BaseModel):
    id: int
    host: str | None = Field(description="Null for others than admins.")
    pid: int | None = Field(description="Null for others than admins.")
    device: str
    started_at: datetime
    heartbeat_at: datetime
