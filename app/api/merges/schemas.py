"""JSON of merges."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, Field, model_validator

from app.api.jobs.schemas import JobError
from app.api.schemas import FIRST_ERROR_ONLY, Space, Strict
from app.api.search.schemas import GeometryField, Neighbors
from app.api.tasks.schemas import NAME
from catalog import tables
from catalog.auth.viewer import PUBLIC, Viewer
from catalog.geometry.transforms import GeometryChoice
from catalog.merges import service as merge_service
from catalog.merges.methods import DEFAULT_DENSITY, DEFAULT_METHOD, MAX_PARTS, MAX_RANK, MAX_WEIGHT, METHODS, MergeSpec
from catalog.merges.plans import Plan
from catalog.models.repo_ref import RepoRef
from catalog.search import service as search_service
from catalog.search.reranking import PageOptions
from catalog.tables import JobState

PART_FIELDS = ("repo_id", "sha", "weight", "license")

Weight = Annotated[float, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT)]


class MergeSpecFields(Strict):
    models: Annotated[list[Annotated[str, Field(max_length=200)]], FIRST_ERROR_ONLY] = Field(
        min_length=2, max_length=MAX_PARTS, description="Repo ids of indexed LoRAs of one base."
    )
    weights: Annotated[list[Weight], FIRST_ERROR_ONLY] | None = Field(
        None, max_length=MAX_PARTS, description="One weight per model. Default: 1 for each."
    )
    method: str = Field(
        DEFAULT_METHOD, pattern=f"^({'|'.join(METHODS)})$", description="Method of PEFT's `add_weighted_adapter`."
    )
    density: float | None = Field(
        None,
        ge=0.01,
        le=1,
        description=f"Share of values that a pruning method keeps. Default: {DEFAULT_DENSITY}.",
    )
    rank: int | None = Field(
        None,
        ge=1,
        le=MAX_RANK,
        description="Rank of an svd method's result. Default: the highest rank of the parts.",
    )
    seed: int | None = Field(None, ge=0, lt=2**31, description="Random seed of a DARE method. Default: 0.")

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.weights is not None and len(self.weights) != len(self.models):
            raise ValueError("`weights` must have as many numbers as `models` has names")
        if self.weights is not None and 0 in self.weights:
            raise ValueError("the weight of a model must not be 0: leave the model out instead")
        if len(set(self.models)) < len(self.models):
            raise ValueError("a model occurs twice in `models`: list it once, with the sum of its weights")
        for name in self._settings():
            if name not in METHODS[self.method].setting_names:
                raise ValueError(f"`{name}` has no meaning for the method {self.method}: leave it out")
        return self

    def to_spec(self) -> MergeSpec:
        """Raises `InvalidRepoId`."""
        names = [RepoRef(name).repo_id for name in self.models]
        weights = self.weights or [1.0] * len(names)
        return MergeSpec(dict(zip(names, weights, strict=True)), self.method, **self._settings())

    def _settings(self) -> dict[str, Any]:
        settings = {"density": self.density, "rank": self.rank, "seed": self.seed}
        return {name: value for name, value in settings.items() if value is not None}


class MergeRequest(MergeSpecFields):
    name: str | None = Field(None, max_length=96, pattern=NAME, description="Name of the merge in expressions.")


class MergeNeighborsQuery(Strict):
    k: int = Field(10, ge=1, le=search_service.MAX_K)
    geometry: GeometryField = GeometryChoice.DEFAULT

    def options(self, viewer: Viewer) -> search_service.SearchOptions:
        return search_service.SearchOptions(page=PageOptions(self.k), geometry=self.geometry, viewer=viewer)


class PlanRequest(MergeSpecFields, MergeNeighborsQuery):
    """The merge to plan, and how many neighbors of the prediction to return."""


class Part(BaseModel):
    repo_id: str
    sha: str
    weight: float
    license: str | None
    predicted_cosine: float | None = Field(description="Cosine of the prediction to this part.")
    cosine: float | None = Field(description="Cosine of the measured vector to this part.")


class Pair(BaseModel):
    models: tuple[str, str]
    cosine: float = Field(description="Cosine of their raw vectors, without the weights.")

    @classmethod
    def from_indices(cls, names: Sequence[str], pairs: Sequence[Sequence[Any]]) -> list[Self]:
        """Pairs from (index, index, cosine), where the indices refer to `names`."""
        return [cls(models=(names[first], names[second]), cosine=cosine) for first, second, cosine in pairs]


class Note(BaseModel):
    code: str
    message: str


class MergePlan(BaseModel):
    """A merge that has not run, with its prediction, which is computed from stored vectors."""

    base: str
    base_sha: str
    method: str
    settings: dict[str, Any]
    rank: int | None = Field(description="Rank of the result; null if it is unknown until the job has run.")
    parts: list[Part]
    pairs: list[Pair]
    notes: list[Note]
    space: Space
    norm: float = Field(description="Norm of the prediction.")
    prediction: list[float] = Field(description="Weighted sum of the parts' vectors.")
    neighbors: Neighbors = Field(description="Neighbors of the prediction, without the parts.")

    @classmethod
    def from_preview(cls, preview: merge_service.Preview) -> Self:
        plan: Plan = preview.plan
        revision, names = plan.parts[0].revision, [part.name for part in plan.parts]
        return cls(
            base=revision.base_repo,
            base_sha=revision.base_sha,
            method=plan.spec.method,
            settings=plan.spec.settings,
            rank=plan.rank,
            parts=[
                Part(
                    repo_id=part.name,
                    sha=part.revision.sha,
                    weight=part.weight,
                    license=part.model.license,
                    predicted_cosine=cosine,
                    cosine=None,
                )
                for part, cosine in zip(plan.parts, plan.cosines_to_parts(plan.prediction), strict=True)
            ],
            pairs=Pair.from_indices(names, [(pair.first, pair.second, pair.cosine) for pair in plan.pairs]),
            notes=[Note(code=note.code, message=note.message) for note in plan.notes],
            space=Space.from_row(plan.space),
            norm=float(np.linalg.norm(plan.prediction)),
            prediction=plan.prediction.tolist(),
            neighbors=Neighbors.from_answer(preview.answer),
        )


class Comparison(BaseModel):
    """The measured vector of a merge in one space, compared with the prediction."""

    feature: str
    cosine: float | None = Field(description="Cosine of the two vectors; null if one of them is zero.")
    residual: float | None = Field(description="Norm of their difference, relative to that of the measured vector.")
    norm: float = Field(description="Norm of the measured vector.")
    predicted_norm: float


class Merge(BaseModel):
    id: int
    name: str | None
    base: str
    base_sha: str
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
    comparisons: list[Comparison] | None = Field(description="Null until the merge is measured.")
    seconds: dict[str, float] | None = Field(description="Duration of fetching, merging and measuring.")
    bytes: int | None = Field(description="Size of the adapter's files.")
    created_at: datetime

    @classmethod
    def from_row(cls, merge: tables.Merge, job: tables.Job, viewer: Viewer = PUBLIC) -> Self:
        plan, metrics = merge.plan, merge.metrics or {}
        names = [part["repo_id"] for part in merge.parts]
        cosines_to_parts = metrics.get("cosines_to_parts") or [None] * len(names)
        comparisons = [Comparison(feature=name, **values) for name, values in metrics.get("spaces", {}).items()]
        columns = {name: getattr(merge, name) for name in ("id", "name", "method", "settings", "created_at")}
        return cls(
            **columns,
            base=merge.base_repo,
            base_sha=merge.base_sha,
            rank=metrics.get("rank", plan["rank"]),
            parts=[
                Part(predicted_cosine=predicted, cosine=measured, **{name: part[name] for name in PART_FIELDS})
                for part, predicted, measured in zip(
                    merge.parts, plan["cosines_to_parts"], cosines_to_parts, strict=True
                )
            ],
            pairs=Pair.from_indices(names, plan["pairs"]),
            notes=[Note(code=code, message=message) for code, message in plan["notes"]],
            job=job.id,
            state=JobState(job.state),
            progress=job.progress,
            error=JobError.from_columns(job.error_code, job.error_message, viewer),
            comparisons=comparisons if metrics else None,
            seconds=metrics.get("seconds"),
            bytes=metrics.get("bytes"),
        )


class Merges(BaseModel):
    merges: list[Merge]
    next_cursor: str | None


class MergeNeighbors(BaseModel):
    """The models nearest to the prediction of a merge and to its measured vector, without the parts."""

    predicted: Neighbors
    measured: Neighbors | None = Field(description="Null until the merge is measured, and if its vector is zero.")

    @classmethod
    def from_answers(cls, neighbors: merge_service.MergeNeighbors) -> Self:
        measured = Neighbors.from_answer(neighbors.measured) if neighbors.measured else None
        return cls(predicted=Neighbors.from_answer(neighbors.predicted), measured=measured)
