"""JSON of job histories and events, queues, and workers in detail."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from app.api.internals import message_for
from app.api.jobs.schemas import Job, JobError, Worker
from app.api.schemas import NO_NUL, Strict
from catalog import tables
from catalog.auth.viewer import ADMIN, PUBLIC, Viewer
from catalog.jobs.service import Event, QueueReport
from catalog.tables import JobState


class Attempt(BaseModel):
    """An ended attempt at a job."""

    attempt: int
    worker_id: int | None
    worker: str | None = Field(description="Host and process id; null for others than admins.")
    started_at: datetime | None
    ended_at: datetime
    state: JobState = Field(description="The state of the job when the attempt ended.")
    progress: float
    concurrent_jobs: int = Field(description="How many other jobs the worker was running.")
    outcome: Literal["done", "failed", "cancelled", "released", "worker died"]
    code: str | None
    message: str | None
    left_out: int = Field(0, description="How many attempts before this one are not shown: of many, the middle ones.")

    @classmethod
    def from_entry(cls, entry: dict[str, Any], viewer: Viewer, folder: str | None) -> Self:
        """An entry of a job's history."""
        attempt = cls.model_validate(entry)
        attempt.worker = attempt.worker if viewer.is_admin else None
        if attempt.code is not None and attempt.message is not None:
            attempt.message = message_for(viewer, attempt.code, attempt.message, folder)
        return attempt


class JobDetail(Job):
    worker_deaths: int = Field(description="How many workers died while they ran the job.")
    history: list[Attempt]

    @classmethod
    def from_row(cls, job: tables.Job, viewer: Viewer = PUBLIC) -> Self:
        history = [Attempt.from_entry(entry, viewer, job.model.folder) for entry in job.history]
        return cls(**Job.from_row(job, viewer).model_dump(), worker_deaths=job.worker_deaths, history=history)


class JobEvent(BaseModel):
    """A change of a job's state or progress, with the values after it."""

    job: int
    repo_id: str
    state: JobState
    progress: float
    attempts: int
    error: JobError | None
    at: datetime

    @classmethod
    def from_event(cls, event: Event, viewer: Viewer = PUBLIC) -> Self:
        return cls(
            job=event.job_id,
            repo_id=event.repo_id,
            state=JobState(event.state),
            progress=event.progress,
            attempts=event.attempts,
            error=JobError.from_columns(event.error_code, event.error_message, viewer),
            at=event.at,
        )

    @classmethod
    def from_row(cls, job: tables.Job, viewer: Viewer = PUBLIC) -> Self:
        """The current values of a job, in the form of an event."""
        return cls(
            job=job.id,
            repo_id=job.model.repo_id,
            state=JobState(job.state),
            progress=job.progress,
            attempts=job.attempts,
            error=JobError.from_columns(job.error_code, job.error_message, viewer, job.model.folder),
            at=job.updated_at,
        )


class ResidentBase(BaseModel):
    repo_id: str
    bytes: int


class WorkerDetail(Worker):
    activity: str | None = Field(description="What the worker was doing at its last heartbeat.")
    bases: list[ResidentBase] = Field(description="The base models in its memory.")
    memory: dict[str, int] = Field(description="Bytes: `resident` of the process, `device` of the GPU.")
    jobs: list[Job] = Field(description="The jobs that it is running.")

    @classmethod
    def from_row(cls, worker: tables.Worker, running: list[tables.Job]) -> Self:
        return cls(
            **Worker.model_validate(worker, from_attributes=True).model_dump(),
            activity=worker.status.get("activity"),
            bases=worker.status.get("bases", []),
            memory=worker.status.get("memory", {}),
            jobs=[Job.from_row(job, ADMIN) for job in running if job.worker_id == worker.id],
        )


class WorkerDetails(BaseModel):
    workers: list[WorkerDetail]


class Queue(BaseModel):
    name: str
    paused: bool
    paused_at: datetime | None
    drained: bool = Field(description="Paused, and no job of the queue is running any more.")
    queued: int
    running: int

    @classmethod
    def from_report(cls, report: QueueReport) -> Self:
        return cls(
            name=report.name,
            paused=report.paused_at is not None,
            paused_at=report.paused_at,
            drained=report.drained,
            queued=report.queued,
            running=report.running,
        )


class Queues(BaseModel):
    queues: list[Queue]


class RetryRequest(Strict):
    code: str = Field(max_length=100, pattern=NO_NUL, examples=["hub_unavailable"], description="The error code.")


class Retried(BaseModel):
    retried: int
