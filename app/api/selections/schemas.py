"""Selections of modules for a task, as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field

from app.api.jobs.schemas import JobError
from app.api.schemas import FIRST_MISTAKE, NO_NUL, Strict
from catalog import tables
from catalog.selections import service as selection_service
from catalog.selections.strategies import Arm
from catalog.tables import JobState


class SelectionRequest(Strict):
    task: Annotated[str, Field(max_length=200, pattern=NO_NUL)] | Annotated[int, Field(ge=1, lt=2**63)] = Field(
        description="Number or name of a task that is done, and whose examples are kept."
    )
    base: str | None = Field(None, max_length=200, pattern=NO_NUL, description="The first on which the task is done.")
    count: int = Field(5, ge=1, le=10, description="Modules in a set.")
    arms: Annotated[list[Arm], FIRST_MISTAKE] = Field(
        list(Arm), min_length=1, max_length=len(Arm), description="Ways to choose a set."
    )
    seeds: int = Field(3, ge=1, le=10, description="How often each is tried, with other examples.")
    seed: int = Field(0, ge=0, lt=2**31, description="The first seed.")
    budget: int = Field(40, ge=12, le=200, description="Weights that are tried for a set, at most.")

    def wish(self) -> selection_service.Wish:
        return selection_service.Wish(
            str(self.task), self.base, self.count, self.arms, self.seeds, self.seed, self.budget
        )  # fmt: skip


class Mean(BaseModel):
    """Over the seeds, with bounds of its 95% interval (Student's t); null where there is one seed."""

    mean: float
    low: float | None
    high: float | None


class Weighted(BaseModel):
    repo_id: str
    similarity: float = Field(description="Cosine to the task.")
    weight: float


class TriedSet(BaseModel):
    """A set that is ready to be merged: the models' deltas, each times its weight."""

    seed: int
    modules: list[Weighted]
    examples_loss: float = Field(description="Nats a token of the examples that it was composed on.")
    held_out_loss: float = Field(description="Nats a token of those held back.")


class ArmFigures(BaseModel):
    arm: Arm
    held_out_loss: Mean
    beside_random: Mean | None = Field(description="Its loss less that of random sets, seed by seed.")
    sets: list[TriedSet]


class NearestAlone(BaseModel):
    repo_id: str
    held_out_loss: float


class LeftOut(BaseModel):
    repo_id: str
    error: str = Field(description="Code of what stood in the way.")


class Figures(BaseModel):
    seconds: float
    candidates: int = Field(description="Plain LoRA adapters of the base that everybody may see.")
    left_out: list[LeftOut] = Field(description="That were proposed and cannot be had.")
    examples: int = Field(description="From which those are drawn that sets are composed on.")
    held_out: int
    held_out_unseen: bool = Field(description="Whether the task's vector was made without those, too.")
    base_loss: float = Field(description="Of the base itself on the examples held back, nats a token.")
    nearest_alone: NearestAlone
    arms: list[ArmFigures]


class Selection(BaseModel):
    id: int
    task: int
    base: str
    count: int
    arms: list[Arm]
    seeds: int
    seed: int
    budget: int
    job: int
    state: JobState
    progress: float
    error: JobError | None
    figures: Figures | None = Field(description="Once its job is done.")
    created_at: datetime

    @classmethod
    def of(cls, selection: tables.Selection, job: tables.Job) -> Self:
        names = ("id", "count", "arms", "seeds", "seed", "budget", "figures", "created_at")
        own: dict[str, Any] = {name: getattr(selection, name) for name in names}
        return cls(
            task=selection.task_id,
            base=selection.base_repo,
            job=job.id,
            state=JobState(job.state),
            progress=job.progress,
            error=JobError.of(job.error_code, job.error_message),
            **own,
        )


class Selections(BaseModel):
    selections: list[Selection]
    next_cursor: str | None
