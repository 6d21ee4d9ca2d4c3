"""JSON of reindexes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field

from app.api.jobs.schemas import JobError
from app.api.schemas import NO_NUL, Strict
from catalog import tables
from catalog.auth.viewer import ADMIN
from catalog.reindexes import readiness
from catalog.reindexes.service import ReindexSelection
from catalog.tables import JobState, ReindexState


class ReindexRequest(Strict):
    """The models to measure again. Set exactly one field."""

    all: bool = Field(False, description="Every indexed model.")
    base: Annotated[str, Field(max_length=200, pattern=NO_NUL)] | None = Field(
        None, description="The fine-tunes of this base model."
    )
    space: Annotated[str, Field(max_length=64, pattern=NO_NUL)] | None = Field(
        None, description="The models of the space with this key, or of the serving space of this feature."
    )
    state: Literal["indexed", "no_shift", "failed"] | None = Field(None, description="The models in this state.")
    outdated: bool = Field(
        False, description="The models that have no vector under the workers' current contract (encoder, probes, ...)."
    )

    def selection(self) -> ReindexSelection:
        """Raises `InvalidInput` and `InvalidRepoId`."""
        return ReindexSelection(self.all, self.base, self.space, self.state, self.outdated)


class Force(Strict):
    force: bool = Field(False, description="Go ahead even if artifacts are missing or searches would lose models.")


class JobFailures(BaseModel):
    """Jobs of a reindex that failed with the same error."""

    code: str
    count: int
    repo_ids: list[str] = Field(description="The first models, by name.")

    @classmethod
    def from_failures(cls, failures: readiness.JobFailures) -> Self:
        return cls(code=failures.code, count=failures.count, repo_ids=failures.repo_ids)


class MissingArtifact(BaseModel):
    space: str = Field(description="The key of the space.")
    kind: str = Field(description="`index`, `clusters` or `map`.")


class Reindex(BaseModel):
    id: int
    selection: dict[str, Any]
    state: ReindexState
    stage: str | None = Field(
        description="`queueing`, `measuring`, `backfilling`, `building` or `discarding`; null if no work is left."
    )
    contract: list[dict[str, Any]] | None = Field(
        description="The contract that is measured, one entry per feature; null until a worker has started."
    )
    total: int | None = Field(description="Number of selected models; null until a worker has started.")
    queued: int = Field(description="Number of jobs created.")
    quarantined: int = Field(description="Number of models skipped because they are quarantined.")
    backfilled: int = Field(description="Number of vectors copied from other spaces of the same contract.")
    jobs: dict[JobState, int] | None = Field(description="Number of jobs in each state; null in lists.")
    failures: list[JobFailures] | None = Field(description="Failed jobs by error, most frequent first; null in lists.")
    missing_artifacts: list[MissingArtifact] | None = Field(description="Artifacts still to be built; null in lists.")
    error: JobError | None
    created_at: datetime
    ready_at: datetime | None
    cut_over_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def from_row(cls, row: tables.Reindex, **progress: Any) -> Self:
        not_columns = ("jobs", "failures", "missing_artifacts", "error", "selection")
        columns = {name: getattr(row, name) for name in cls.model_fields if name not in not_columns}
        selection = {"all" if name == "everything" else name: value for name, value in row.selection.items()}
        return cls(
            **columns,
            selection=selection,
            error=JobError.from_columns(row.error_code, row.error_message, ADMIN),
            **{"jobs": None, "failures": None, "missing_artifacts": None} | progress,
        )

    @classmethod
    def with_progress(cls, progress: readiness.Progress) -> Self:
        return cls.from_row(
            progress.reindex,
            jobs=progress.jobs,
            failures=[JobFailures.from_failures(failures) for failures in progress.failures],
            missing_artifacts=[MissingArtifact.model_validate(artifact) for artifact in progress.missing_artifacts],
        )


class Reindexes(BaseModel):
    """A page of reindexes."""

    reindexes: list[Reindex]
    next_cursor: str | None


class Distribution(BaseModel):
    mean: float
    percentiles: list[float] = Field(description="The 5th, 25th, 50th, 75th and 95th percentile.")


class ChangedModel(BaseModel):
    repo_id: str
    overlap: float = Field(description="Share of its nearest neighbors that stay.")


class Drift(BaseModel):
    """How nearest neighbors change among `models` sampled models."""

    models: int
    k: int = Field(description="Number of nearest neighbors compared for each model.")
    overlap: Distribution = Field(description="Share of a model's k nearest neighbors that stay.")
    histogram: list[int] = Field(description="Number of models by overlap, in ten bins from 0 to 1.")
    nearest_changed: float = Field(description="Share of the models whose nearest neighbor changes.")
    cosine: Distribution | None = Field(
        description="Cosine of the old and the new vector; null if their dimensions differ."
    )
    norm_ratio: Distribution = Field(description="New norm divided by old norm.")
    most_changed: list[ChangedModel] = Field(description="The models with the lowest overlap, lowest first.")


class LostModels(BaseModel):
    """Models that searches find now and would not find after the cutover."""

    count: int
    repo_ids: list[str] = Field(description="The first models, by name.")


class SpacePairReport(BaseModel):
    feature: str
    base: str | None
    old: str | None = Field(description="Key of the serving space; null if there is none.")
    new: str = Field(description="Key of the space that would serve after the cutover.")
    lost_models: LostModels
    drift: Drift | None = Field(description="Null if fewer than three models are in both spaces.")


class DriftReport(BaseModel):
    final: bool = Field(description="Whether the report was made when the reindex became ready.")
    spaces: list[SpacePairReport]

    @classmethod
    def from_report(cls, final: bool, spaces: list[dict[str, Any]]) -> Self:
        return cls(final=final, spaces=[SpacePairReport.model_validate(space) for space in spaces])
