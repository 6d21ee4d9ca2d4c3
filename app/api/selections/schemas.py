"""JSON of selections of adapters for a task."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field

from app.api.jobs.schemas import JobError
from app.api.schemas import FIRST_ERROR_ONLY, NO_NUL, Strict, TeamTags
from catalog import tables
from catalog.auth.viewer import PUBLIC, Viewer
from catalog.selections import service as selection_service
from catalog.selections.strategies import DEFAULT_STRATEGY, Strategy
from catalog.tables import JobState


class SelectionRequest(Strict):
    task: Annotated[str, Field(max_length=200, pattern=NO_NUL)] | Annotated[int, Field(ge=1, lt=2**63)] = Field(
        description="Id or name of a finished task that was created with `keep_examples`."
    )
    base: str | None = Field(
        None,
        max_length=200,
        pattern=NO_NUL,
        description="Repo id. Default: the first base on which the task is finished.",
    )
    count: int = Field(5, ge=1, le=10, description="Number of adapters in a set.")
    strategies: Annotated[list[Strategy], FIRST_ERROR_ONLY] = Field(
        [DEFAULT_STRATEGY], min_length=1, max_length=len(Strategy), description="One set is composed for each."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Random seed of the examples that weights are chosen by.")
    budget: int = Field(40, ge=12, le=200, description="Maximum number of weightings that are tried for a set.")

    team_tags: TeamTags = Field([], description="Only adapters with all of these team tags.")

    def to_request(self) -> selection_service.SelectionRequest:
        return selection_service.SelectionRequest(
            str(self.task), self.base, self.count, self.strategies, self.seed, self.budget, self.team_tags
        )


class Member(BaseModel):
    repo_id: str
    similarity: float = Field(description="Raw cosine to the task.")
    weight: float


class StrategyResult(BaseModel):
    """The set that a strategy selected: the sum of the members' deltas, each times its weight."""

    strategy: Strategy
    members: list[Member]
    examples_loss: float = Field(description="Loss on the examples that weights were chosen by, in nats per token.")
    holdout_loss: float = Field(description="Loss on the holdout, in nats per token.")


class NearestAlone(BaseModel):
    repo_id: str
    holdout_loss: float


class LeftOut(BaseModel):
    repo_id: str
    error: str = Field(description="Error code.")


class Metrics(BaseModel):
    seconds: float
    candidates: int = Field(description="Public plain LoRA adapters of the base with all of the team tags.")
    left_out: list[LeftOut] = Field(description="Candidates that were selected and could not be loaded.")
    examples: int = Field(description="Number of examples outside the holdout; weights are chosen by a sample of them.")
    holdout_examples: int
    holdout_unseen: bool = Field(description="Whether the task's vector was also measured without the holdout.")
    base_loss: float = Field(description="Loss of the base model on the holdout, in nats per token.")
    nearest_alone: NearestAlone = Field(description="The adapter nearest to the task, with weight 1.")
    strategies: list[StrategyResult]


class Selection(BaseModel):
    id: int
    task: int
    base: str
    count: int
    strategies: list[Strategy]
    seed: int
    budget: int
    team_tags: list[str]
    job: int
    state: JobState
    progress: float
    error: JobError | None
    metrics: Metrics | None = Field(description="Null until the job is done.")
    created_at: datetime

    @classmethod
    def from_row(cls, selection: tables.Selection, job: tables.Job, viewer: Viewer = PUBLIC) -> Self:
        names = ("id", "count", "strategies", "seed", "budget", "team_tags", "metrics", "created_at")
        columns: dict[str, Any] = {name: getattr(selection, name) for name in names}
        return cls(
            task=selection.task_id,
            base=selection.base_repo,
            job=job.id,
            state=JobState(job.state),
            progress=job.progress,
            error=JobError.from_columns(job.error_code, job.error_message, viewer),
            **columns,
        )


class Selections(BaseModel):
    selections: list[Selection]
    next_cursor: str | None
