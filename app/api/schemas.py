"""What goes in and comes out, as JSON. Unknown fields are refused."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from fastapi import Path
from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator

from catalog import tables
from catalog.repository import vectors
from catalog.spaces import NAME
from catalog.tables import JobState, ModelState

MAX_DIMENSION = 65_536
MAX_PAGE = 200
MAX_UNKNOWN = 20  # fields of a request that are named as unknown one by one


class _FirstMistake(FailFast):
    __hash__ = object.__hash__  # unions of types hash what they are made of


FIRST_MISTAKE = _FirstMistake()  # of a list, which may hold nothing but mistakes: an error each would take gigabytes

OwnerName = Annotated[str, Path(max_length=200)]
ModelName = Annotated[str, Path(max_length=200)]
SpaceName = Annotated[
    str | None,
    Field(
        max_length=64,
        pattern=NAME,
        description="A space by its key, or by its feature with or without `delta_`, such as `meaning`: then the one "
        "that serves, of the model's own base where a model is asked about. The default space without.",
    ),
]


class Strict(BaseModel):
    """What comes in. Lists are `FIRST_MISTAKE`, so that a request has no more errors than there are fields."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _few(cls, given: Any) -> Any:
        if isinstance(given, dict) and len(given) > len(cls.model_fields) + MAX_UNKNOWN:
            raise ValueError(f"{len(given):,} fields, of which at most {len(cls.model_fields)} are known")
        return given


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
    q: str | None = Field(
        None, min_length=1, max_length=200, pattern=NO_NUL,
        description="Words of the name, the tags or the card; all of them, the last may be begun. The best come first.",
    )  # fmt: skip


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


class Metadata(BaseModel):
    """What the Hub tells of a model; null is what it does not."""

    model_config = ConfigDict(from_attributes=True)

    licence: str | None
    tags: list[str]
    datasets: list[str]
    languages: list[str]
    downloads: int | None
    likes: int | None
    hub_created_at: datetime | None
    hub_updated_at: datetime | None


class Model(BaseModel):
    repo_id: str
    source: Literal["hub", "folder"]
    private: bool = Field(description="Read with a user's token: shown to the keys that may see it.")
    state: ModelState
    revision: Revision | None
    metadata: Metadata
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, model: tables.Model) -> Self:
        return cls(
            repo_id=model.repo_id,
            source="hub" if model.source == tables.Source.HUB else "folder",
            private=model.private,
            state=ModelState(model.state),
            revision=Revision.of(model.revision) if model.revision else None,
            metadata=Metadata.model_validate(model),
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
    edition: int = Field(description="The reindex that measured it anew; 0 for none.")
    dimension: int
    serving: bool = Field(description="Whether it is what questions use that name no space.")

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
    card: str | None = Field(description="The words of its card.")
    embeddings: list[Embedding]

    @classmethod
    def with_embeddings(cls, model: tables.Model, measured: list[vectors.Measured]) -> Self:
        embeddings = [Embedding.model_validate(each, from_attributes=True) for each in measured]
        return cls(**Model.of(model).model_dump(), card=model.card, embeddings=embeddings)


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
