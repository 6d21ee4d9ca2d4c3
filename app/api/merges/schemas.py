"""Merges, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, Field, model_validator

from app.api.jobs.schemas import JobError
from app.api.schemas import FIRST_MISTAKE, Space, Strict
from app.api.search.schemas import KINDS, Neighbors
from app.api.tasks.schemas import NAME
from catalog import tables
from catalog.auth.viewer import Viewer
from catalog.merges import service as merge_service
from catalog.merges.methods import DEFAULT_DENSITY, DEFAULT_METHOD, MAX_RANK, MAX_WEIGHT, METHODS, MOST, Blend
from catalog.merges.plans import Plan
from catalog.models.repo_ref import RepoRef
from catalog.search import service as search_service
from catalog.search.reranking import Page
from catalog.tables import JobState

Weight = Annotated[float, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT)]
Geometry = Annotated[str | None, Field(pattern=KINDS)]


class BlendFields(Strict):
    models: Annotated[list[Annotated[str, Field(max_length=200)]], FIRST_MISTAKE] = Field(
        min_length=2, max_length=MOST, description="Repo ids of indexed LoRAs of one base."
    )
    weights: Annotated[list[Weight], FIRST_MISTAKE] | None = Field(
        None, max_length=MOST, description="One a model; all 1 without."
    )
    method: str = Field(
        DEFAULT_METHOD, pattern=f"^({'|'.join(METHODS)})$", description="Of PEFT's `add_weighted_adapter`."
    )
    density: float | None = Field(
        None, ge=0.01, le=1, description=f"Share of the numbers that a pruning method keeps; {DEFAULT_DENSITY} without."
    )
    rank: int | None = Field(
        None, ge=1, le=MAX_RANK, description="Of the result of an svd method; the greatest of the parts without."
    )
    seed: int | None = Field(None, ge=0, lt=2**31, description="By which DARE draws; 0 without.")

    @model_validator(mode="after")
    def _fits_its_method(self) -> Self:
        how = METHODS[self.method]
        if self.weights is not None and len(self.weights) != len(self.models):
            raise ValueError("`weights` has as many numbers as `models` has names")
        if self.weights is not None and 0 in self.weights:
            raise ValueError("a model with the weight 0 is no part: leave it out")
        if len(set(self.models)) < len(self.models):
            raise ValueError("a model stands twice in `models`: name it once, with the sum of its weights")
        for name, bears in (("density", how.prunes), ("rank", how.cuts), ("seed", how.random)):
            if getattr(self, name) is not None and not bears:
                raise ValueError(f"`{name}` has no meaning for the method {self.method}")
        return self

    def blend(self) -> Blend:
        """Raises `InvalidRepoId`."""
        names = [RepoRef(name).repo_id for name in self.models]
        weights = self.weights or [1.0] * len(names)
        given = {"density": self.density, "rank": self.rank, "seed": self.seed}
        settings = {name: value for name, value in given.items() if value is not None}
        return Blend.of(dict(zip(names, weights, strict=True)), self.method, settings)


class MergeRequest(BlendFields):
    name: str | None = Field(None, max_length=96, pattern=NAME, description="By which expressions know it.")


class NearFields(Strict):
    k: int = Field(10, ge=1, le=search_service.MAX_K)
    geometry: Geometry = None

    def options(self, viewer: Viewer) -> search_service.Options:
        return search_service.Options(page=Page(self.k), geometry=self.geometry, viewer=viewer)


class PlanRequest(BlendFields, NearFields):
    """What would be asked of a merge, and how many neighbours of the prediction are wanted."""


class Part(BaseModel):
    repo_id: str
    sha: str
    weight: float
    licence: str | None
    predicted_cosine: float | None = Field(description="Of the prediction to it.")
    cosine: float | None = Field(description="Of what was made to it.")


class Pair(BaseModel):
    models: tuple[str, str]
    cosine: float = Field(description="Of their vectors as they are, whatever the weights.")

    @classmethod
    def among(cls, names: Sequence[str], pairs: Sequence[Sequence[Any]]) -> list[Self]:
        return [cls(models=(names[one], names[two]), cosine=cosine) for one, two, cosine in pairs]


class Note(BaseModel):
    code: str
    message: str


class MergePlan(BaseModel):
    """What a merge would be: told from what is stored, nothing is fetched."""

    base: str
    sha: str
    method: str
    settings: dict[str, Any]
    rank: int | None = Field(description="Of the result; null where the job has to find out.")
    parts: list[Part]
    pairs: list[Pair]
    notes: list[Note]
    space: Space
    norm: float = Field(description="Of the vector that is predicted, the weighted sum of the parts'.")
    prediction: list[float]
    neighbors: Neighbors = Field(description="Of the prediction, the parts left out.")

    @classmethod
    def of(cls, found: merge_service.Foreseen) -> Self:
        plan: Plan = found.plan
        revision, names = plan.parts[0].revision, [part.name for part in plan.parts]
        return cls(
            base=revision.base_repo,
            sha=revision.base_sha,
            method=plan.blend.method,
            settings=plan.blend.settings,
            rank=plan.rank,
            parts=[
                Part(
                    repo_id=part.name,
                    sha=part.revision.sha,
                    weight=part.weight,
                    licence=part.model.licence,
                    predicted_cosine=cosine,
                    cosine=None,
                )
                for part, cosine in zip(plan.parts, plan.closeness(plan.prediction), strict=True)
            ],
            pairs=Pair.among(names, [(pair.first, pair.second, pair.cosine) for pair in plan.pairs]),
            notes=[Note(code=note.code, message=note.message) for note in plan.notes],
            space=Space.of(plan.space),
            norm=float(np.linalg.norm(plan.prediction)),
            prediction=plan.prediction.tolist(),
            neighbors=Neighbors.of(found.answer),
        )


class Compared(BaseModel):
    """What came out in one space, beside what was predicted there."""

    feature: str
    cosine: float | None = Field(description="Of the two; null where one of them is nothing.")
    residual: float | None = Field(description="Length of their difference, by that of what came out.")
    norm: float
    predicted_norm: float


class Merge(BaseModel):
    id: int
    name: str | None
    base: str
    sha: str
    method: str
    settings: dict[str, Any]
    rank: int | None
    parts: list[Part]
    pairs: list[Pair]
    notes: list[Note]
    job: int
    state: JobState
    progress: float
    error: JobError | None
    compared: list[Compared] | None = Field(description="Null until it is made.")
    seconds: dict[str, float] | None = Field(description="That fetching, merging and measuring took.")
    bytes: int | None = Field(description="Of its files.")
    created_at: datetime

    @classmethod
    def of(cls, merge: tables.Merge, job: tables.Job) -> Self:
        plan, figures = merge.plan, merge.figures or {}
        names = [part["repo_id"] for part in merge.parts]
        closeness = figures.get("closeness") or [None] * len(names)
        told = [Compared(feature=name, **each) for name, each in figures.get("spaces", {}).items()]
        own = {name: getattr(merge, name) for name in ("id", "name", "method", "settings", "created_at")}
        return cls(
            **own,
            base=merge.base_repo,
            sha=merge.base_sha,
            rank=figures.get("rank", plan["rank"]),
            parts=[
                Part(predicted_cosine=predicted, cosine=made, **{name: part[name] for name in PART_OF_ROW})
                for part, predicted, made in zip(merge.parts, plan["closeness"], closeness, strict=True)
            ],
            pairs=Pair.among(names, plan["pairs"]),
            notes=[Note(code=code, message=message) for code, message in plan["notes"]],
            job=job.id,
            state=JobState(job.state),
            progress=job.progress,
            error=JobError.of(job.error_code, job.error_message),
            compared=told if figures else None,
            seconds=figures.get("seconds"),
            bytes=figures.get("bytes"),
        )


PART_OF_ROW = ("repo_id", "sha", "weight", "licence")


class Merges(BaseModel):
    merges: list[Merge]
    next_cursor: str | None


class MergeNeighbors(BaseModel):
    """The models nearest to what was predicted of a merge and to what came out, its parts left out."""

    predicted: Neighbors
    made: Neighbors | None = Field(description="Null until it is made.")

    @classmethod
    def of(cls, found: merge_service.Near) -> Self:
        made = Neighbors.of(found.made) if found.made else None
        return cls(predicted=Neighbors.of(found.predicted), made=made)
