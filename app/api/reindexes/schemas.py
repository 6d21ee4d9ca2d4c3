"""Reindexes as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field

from app.api.jobs.schemas import JobError
from app.api.schemas import NO_NUL, Strict
from catalog import tables
from catalog.reindexes.readiness import Failures, Progress
from catalog.reindexes.service import Selection
from catalog.tables import JobState, ReindexState


class ReindexRequest(Strict):
    """Exactly one of these."""

    all: bool = Field(False, description="Every model that is indexed.")
    base: Annotated[str, Field(max_length=200, pattern=NO_NUL)] | None = Field(
        None, description="The fine-tunes of this base model."
    )
    space: Annotated[str, Field(max_length=64, pattern=NO_NUL)] | None = Field(
        None, description="The models of the space with this key, or of the serving one of this feature."
    )
    state: Literal["indexed", "no_shift", "failed"] | None = Field(None, description="The models in this state.")
    outdated: bool = Field(
        False, description="The models that were not measured under what the workers measure now: encoder, probes, ..."
    )

    def selection(self) -> Selection:
        """Raises `InvalidInput` and `InvalidRepoId`."""
        return Selection(self.all, self.base, self.space, self.state, self.outdated)


class Force(Strict):
    force: bool = Field(False, description="Also where something is not built yet, or models would be lost.")


class Failed(BaseModel):
    """Jobs of a reindex that failed with one error."""

    code: str
    count: int
    models: list[str] = Field(description="The first of them, by name.")

    @classmethod
    def of(cls, found: Failures) -> Self:
        return cls(code=found.code, count=found.count, models=found.repo_ids)


class PartLeft(BaseModel):
    space: str = Field(description="Its key.")
    part: str = Field(description="`index`, `clusters` or `map`.")


class Reindex(BaseModel):
    id: int
    selection: dict[str, Any]
    state: ReindexState
    stage: str | None = Field(
        description="`queueing`, `measuring`, `carrying`, `building`, `discarding`; null where nothing is to be done."
    )
    contract: list[dict[str, Any]] | None = Field(description="What is measured; null until a worker has begun.")
    total: int | None = Field(description="Models selected, counted when a worker began.")
    queued: int = Field(description="Jobs made.")
    quarantined: int = Field(description="Models left alone because they have killed workers.")
    carried: int = Field(description="Vectors copied from spaces of the same contract.")
    jobs: dict[JobState, int] | None = Field(description="By state; null in lists.")
    failed: list[Failed] | None = Field(description="By error; null in lists.")
    left: list[PartLeft] | None = Field(description="What is still being built; null in lists.")
    error: JobError | None
    created_at: datetime
    ready_at: datetime | None
    switched_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, row: tables.Reindex, **progress: Any) -> Self:
        elsewhere = ("jobs", "failed", "left", "error", "selection")
        own = {name: getattr(row, name) for name in cls.model_fields if name not in elsewhere}
        selection = {"all" if name == "everything" else name: value for name, value in row.selection.items()}
        return cls(
            **own,
            selection=selection,
            error=JobError.of(row.error_code, row.error_message),
            **{"jobs": None, "failed": None, "left": None} | progress,
        )

    @classmethod
    def with_progress(cls, progress: Progress) -> Self:
        failed = [Failed.of(each) for each in progress.failures]
        left = [PartLeft.model_validate(each) for each in progress.parts_left]
        return cls.of(progress.reindex, jobs=progress.jobs, failed=failed, left=left)


class Reindexes(BaseModel):
    reindexes: list[Reindex]
    next_cursor: str | None


class Spread(BaseModel):
    mean: float
    percentiles: list[float] = Field(description="5th, 25th, 50th, 75th and 95th.")


class Moved(BaseModel):
    repo_id: str
    overlap: float = Field(description="Share of its nearest neighbours that stayed.")


class Drift(BaseModel):
    """How neighbours among `models` sampled models changed."""

    models: int
    k: int = Field(description="Nearest neighbours that were compared of each.")
    overlap: Spread = Field(description="Share of a model's k nearest that stayed.")
    histogram: list[int] = Field(description="Models by that share, in ten bins from 0 to 1.")
    nearest_changed: float = Field(description="Share of the models whose nearest is another one.")
    cosine: Spread | None = Field(description="Of the old to the new vector; null where their dimensions differ.")
    norm_ratio: Spread = Field(description="New norm by old norm.")
    most: list[Moved] = Field(description="The models whose neighbours changed most.")


class Lost(BaseModel):
    """Models that are found now and would not be after the switch."""

    count: int
    repo_ids: list[str] = Field(description="The first of them, by name.")


class PairReport(BaseModel):
    feature: str
    base: str | None
    old: str | None = Field(description="Key of the space that serves; null where there is none.")
    new: str = Field(description="Key of the space that would serve.")
    lost: Lost
    drift: Drift | None = Field(description="Null where fewer than three models are in both.")


class DriftReport(BaseModel):
    final: bool = Field(description="Whether all was measured when it was made.")
    spaces: list[PairReport]

    @classmethod
    def of(cls, final: bool, told: list[dict[str, Any]]) -> Self:
        return cls(final=final, spaces=[PairReport.model_validate(each) for each in told])
