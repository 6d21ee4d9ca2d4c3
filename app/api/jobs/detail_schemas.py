"""Jobs, queues and workers in full, as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, Field

from app.api.jobs.schemas import Job, JobError, Worker
from app.api.schemas import NO_NUL, Strict
from catalog import tables
from catalog.jobs.service import Event, QueueReport
from catalog.tables import JobState


class Attempt(BaseModel):
    """How one attempt at a job ended, and what was known then."""

    attempt: int
    worker_id: int | None
    worker: str | None = Field(description="Host and process id.")
    started_at: datetime | None
    ended_at: datetime
    state: JobState = Field(description="What the job was at.")
    progress: float
    beside: int = Field(description="Other jobs that the worker had.")
    outcome: Literal["done", "failed", "cancelled", "released", "worker died"]
    code: str | None
    message: str | None


class JobDetail(Job):
    deaths: int = Field(description="Workers that died while they had it.")
    history: list[Attempt]

    @classmethod
    def with_history(cls, job: tables.Job) -> Self:
        history = [Attempt.model_validate(each) for each in job.history]
        return cls(**Job.of(job).model_dump(), deaths=job.deaths, history=history)


class JobEvent(BaseModel):
    """What a job had become."""

    job: int
    repo_id: str
    state: JobState
    progress: float
    attempts: int
    error: JobError | None
    at: datetime

    @classmethod
    def of(cls, event: Event) -> Self:
        own = {name: getattr(event, name) for name in ("repo_id", "progress", "attempts", "at")}
        error = JobError.of(event.error_code, event.error_message)
        return cls(job=event.job_id, state=JobState(event.state), error=error, **own)

    @classmethod
    def as_it_is(cls, job: tables.Job) -> Self:
        own = Job.of(job)
        told = {name: getattr(own, name) for name in ("repo_id", "state", "progress", "attempts", "error")}
        return cls(job=job.id, at=job.updated_at, **told)


class ResidentBase(BaseModel):
    repo_id: str
    bytes: int


class WorkerDetail(Worker):
    activity: str | None = Field(description="What it said that it does, when it last beat.")
    bases: list[ResidentBase] = Field(description="In its memory.")
    memory: dict[str, int] = Field(description="Bytes: `resident` of the process, `device` of a GPU's.")
    jobs: list[Job] = Field(description="What it has now.")

    @classmethod
    def with_jobs(cls, worker: tables.Worker, running: list[tables.Job]) -> Self:
        own = Worker.model_validate(worker, from_attributes=True).model_dump()
        told = {"activity": worker.status.get("activity"), "bases": worker.status.get("bases", [])}
        jobs = [Job.of(job) for job in running if job.worker_id == worker.id]
        return cls(**own, **told, memory=worker.status.get("memory", {}), jobs=jobs)


class WorkerDetails(BaseModel):
    workers: list[WorkerDetail]


class Queue(BaseModel):
    name: str
    paused: bool
    paused_at: datetime | None
    drained: bool = Field(description="Paused, and nothing of it runs any more.")
    queued: int
    running: int

    @classmethod
    def of(cls, report: QueueReport) -> Self:
        own = {name: getattr(report, name) for name in ("name", "paused_at", "drained", "queued", "running")}
        return cls(paused=report.paused_at is not None, **own)


class Queues(BaseModel):
    queues: list[Queue]


class RetryRequest(Strict):
    code: str = Field(max_length=100, pattern=NO_NUL, examples=["hub_unavailable"], description="Of the error.")


class Retried(BaseModel):
    retried: int
