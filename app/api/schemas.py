"""What goes in and comes out, as JSON. Unknown fields are refused."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from catalog import tables
from catalog.repository import job_events, queues, vectors
from catalog.tables import JobState, ModelState

MAX_DIMENSION = 65_536
MAX_PAGE = 200


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Submission(Strict):
    repo_id: str = Field(max_length=200, examples=["HuggingFaceTB/SmolLM2-135M-Instruct-lora"])
    revision: str | None = Field(None, max_length=255, description="Branch, tag or commit; the main branch without.")


NO_NUL = "^[^\\x00]*$"  # Postgres takes no text with a NUL in it


class PageQuery(Strict):
    cursor: str | None = Field(None, max_length=200, description="`next_cursor` of the page before.")
    limit: int = Field(50, ge=1, le=MAX_PAGE)


class ModelsQuery(PageQuery):
    base: str | None = Field(None, max_length=200, pattern=NO_NUL, description="Repo id of the base model.")
    owner: str | None = Field(None, max_length=100, pattern=NO_NUL)
    state: ModelState | None = None


class JobsQuery(PageQuery):
    state: JobState | None = None


class JobError(BaseModel):
    code: str
    message: str

    @classmethod
    def of(cls, code: str | None, message: str | None) -> Self | None:
        return cls(code=code, message=message or "") if code else None


PRIORITIES: tuple[Literal["person", "webhook", "crawl"], ...] = ("person", "webhook", "crawl")  # by their numbers

OVER = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


class Job(BaseModel):
    id: int
    repo_id: str
    revision: str | None = Field(description="As it was asked for.")
    sha: str | None = Field(description="The commit that was embedded.")
    state: JobState
    priority: Literal["person", "webhook", "crawl"]
    progress: float = Field(ge=0, le=1)
    attempts: int
    error: JobError | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, job: tables.Job) -> Self:
        error = JobError.of(job.error_code, job.error_message)
        return cls(
            id=job.id,
            repo_id=job.model.repo_id,
            revision=job.requested_revision,
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
    def of(cls, event: job_events.Event) -> Self:
        own = {name: getattr(event, name) for name in ("repo_id", "progress", "attempts", "at")}
        error = JobError.of(event.error_code, event.error_message)
        return cls(job=event.job_id, state=JobState(event.state), error=error, **own)

    @classmethod
    def as_it_is(cls, job: tables.Job) -> Self:
        own = Job.of(job)
        told = {name: getattr(own, name) for name in ("repo_id", "state", "progress", "attempts", "error")}
        return cls(job=job.id, at=job.updated_at, **told)


class Jobs(BaseModel):
    jobs: list[Job]
    next_cursor: str | None


class BaseModelRef(BaseModel):
    repo_id: str
    sha: str
    evidence: dict = Field(description="How it was found out.")


class Revision(BaseModel):
    sha: str
    kind: str = Field(examples=["lora"])
    base: BaseModelRef
    created_at: datetime

    @classmethod
    def of(cls, revision: tables.Revision) -> Self:
        base = BaseModelRef(repo_id=revision.base_repo, sha=revision.base_sha, evidence=revision.base_evidence)
        return cls(sha=revision.sha, kind=revision.kind, base=base, created_at=revision.created_at)


class Model(BaseModel):
    repo_id: str
    source: Literal["hub", "folder"]
    state: ModelState
    revision: Revision | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, model: tables.Model) -> Self:
        return cls(
            repo_id=model.repo_id,
            source="hub" if model.source == tables.Source.HUB else "folder",
            state=ModelState(model.state),
            revision=Revision.of(model.revision) if model.revision else None,
            created_at=model.created_at,
            updated_at=model.updated_at,
        )


class Space(BaseModel):
    """An embedding contract: vectors compare only within one."""

    model_config = ConfigDict(from_attributes=True)

    key: str
    feature: str
    layer: int
    base_repo: str | None
    base_sha: str | None
    probe_set: str
    dtype: str
    encoder_version: str
    dimension: int

    @classmethod
    def of(cls, space: tables.SpaceRow) -> Self:
        return cls.model_validate(space)


class Embedding(BaseModel):
    """What is known of a model in one space."""

    space: Space
    norm: float = Field(description="How far the model moved its base.")
    noise_floor: float = Field(description="The norm under which a shift is rounding and no learning.")
    no_shift: bool
    explanation: dict | None = Field(description="Tokens that the shift promotes and suppresses most.")


class ModelDetail(Model):
    embeddings: list[Embedding]

    @classmethod
    def with_embeddings(cls, model: tables.Model, measured: list[vectors.Measured]) -> Self:
        embeddings = [Embedding.model_validate(each, from_attributes=True) for each in measured]
        return cls(**Model.of(model).model_dump(), embeddings=embeddings)


class Models(BaseModel):
    models: list[Model]
    next_cursor: str | None


class Spaces(BaseModel):
    spaces: list[Space]


class Worker(BaseModel):
    id: int
    host: str
    pid: int
    device: str
    started_at: datetime
    heartbeat_at: datetime


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
    def of(cls, report: queues.QueueReport) -> Self:
        own = {name: getattr(report, name) for name in ("name", "paused_at", "drained", "queued", "running")}
        return cls(paused=report.paused_at is not None, **own)


class Queues(BaseModel):
    queues: list[Queue]


class RetryRequest(Strict):
    code: str = Field(max_length=100, pattern=NO_NUL, examples=["hub_unavailable"], description="Of the error.")


class Retried(BaseModel):
    retried: int


class Stats(BaseModel):
    models: dict[ModelState, int]
    jobs: dict[JobState, int]
    workers: list[Worker]


class Check(BaseModel):
    ok: bool
    detail: str


class Readiness(BaseModel):
    ready: bool
    missing: list[str]
    checks: dict[str, Check]
