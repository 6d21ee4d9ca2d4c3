"""JSON of models, their revisions and measurements."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from app.api.models.curation_schemas import Curation
from app.api.schemas import NO_NUL, PageQuery, Space, Strict, TeamTags
from catalog import tables
from catalog.models.curation import CuratedModel
from catalog.models.service import ModelFilter
from catalog.tables import ModelState
from catalog.vectors.service import Measurement


class Submission(Strict):
    repo_id: str = Field(max_length=200, examples=["HuggingFaceTB/SmolLM2-135M-Instruct-lora"])
    revision: str | None = Field(
        None, max_length=255, description="Branch, tag or commit, no pull request. Default: the main branch."
    )
    base: str | None = Field(
        None, max_length=200,
        description="Repo id of the base model, tried before those that the repo's files name.",
    )  # fmt: skip


class ModelsQuery(PageQuery):
    base: str | None = Field(None, max_length=200, pattern=NO_NUL, description="Repo id of the base model.")
    owner: str | None = Field(None, max_length=100, pattern=NO_NUL)
    state: ModelState | None = None
    team_tag: TeamTags = Field([], description="Only models with all of these team tags.")
    q: str | None = Field(
        None, min_length=1, max_length=200, pattern=NO_NUL,
        description="Words that names, tags or cards must contain; the last one as a prefix. Best match first.",
    )  # fmt: skip

    def filters(self) -> ModelFilter:
        return ModelFilter(self.base, self.owner, self.state, self.q, tuple(self.team_tag))


class BaseModelRef(BaseModel):
    repo_id: str
    sha: str
    evidence: dict = Field(description="How the base was determined.")


class Revision(BaseModel):
    sha: str
    kind: str = Field(examples=["lora"])
    base: BaseModelRef
    notes: list[str] = Field(description="Sentences about how its files were read and run, such as a part left out.")
    created_at: datetime

    @classmethod
    def from_row(cls, revision: tables.Revision) -> Self:
        base = BaseModelRef(repo_id=revision.base_repo, sha=revision.base_sha, evidence=revision.base_evidence)
        notes = (revision.facts or {}).get("notes", [])
        return cls(sha=revision.sha, kind=revision.kind, base=base, notes=notes, created_at=revision.created_at)


class Metadata(BaseModel):
    """Metadata from the Hub; null if the Hub does not provide a value."""

    model_config = ConfigDict(from_attributes=True)

    license: str | None
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
    private: bool = Field(description="Fetched with a user's Hub token; visible only to the API keys with access.")
    state: ModelState
    revision: Revision | None
    metadata: Metadata
    curation: Curation
    created_at: datetime
    updated_at: datetime

    @classmethod
    def from_curated(cls, curated: CuratedModel) -> Self:
        model = curated.model
        return cls(
            repo_id=model.repo_id,
            source="hub" if model.source == tables.Source.HUB else "folder",
            private=model.private,
            state=ModelState(model.state),
            revision=Revision.from_row(model.revision) if model.revision else None,
            metadata=Metadata.model_validate(model),
            curation=Curation.from_curated(curated),
            created_at=model.created_at,
            updated_at=model.updated_at,
        )


class ModelMeasurement(BaseModel):
    """The measurement of a model in one space."""

    space: Space
    norm: float = Field(description="Norm of the model's vector: how far it is from its base.")
    noise_floor: float = Field(description="Norm up to which a vector may be measurement noise.")
    no_shift: bool
    explanation: dict | None = Field(description="The tokens that the fine-tune promotes and suppresses most.")


class BaseProof(BaseModel):
    """How a base model runs: its packed forward pass was compared with its own, plain one."""

    model_config = ConfigDict(from_attributes=True)

    path: Literal["packed", "plain"] = Field(description="plain: each prompt alone, in the unmodified model; slower.")
    error: float | None = Field(description="Largest relative error of a state on the packed path; null: it failed.")
    reason: str = Field(description='Why it runs on the plain path; "" for packed.')
    kinds: dict[str, float | None] = Field(description="The same error for each kind of fine-tune; null: infinite.")
    updated_at: datetime


class ModelDetail(Model):
    card: str | None = Field(description="The text of the model card.")
    measurements: list[ModelMeasurement]
    base_proof: BaseProof | None = Field(description="How its base runs; null until a worker has loaded the base.")

    @classmethod
    def with_measurements(
        cls, curated: CuratedModel, measurements: list[Measurement], proof: tables.BaseProof | None
    ) -> Self:
        items = [ModelMeasurement.model_validate(measurement, from_attributes=True) for measurement in measurements]
        return cls(
            **Model.from_curated(curated).model_dump(),
            card=curated.model.card,
            measurements=items,
            base_proof=None if proof is None else BaseProof.model_validate(proof),
        )


class Models(BaseModel):
    models: list[Model]
    next_cursor: str | None


class Removal(BaseModel):
    """What was removed with a model."""

    model_config = ConfigDict(from_attributes=True)

    repo_id: str = Field(description="The current name of the model.")
    revisions: int
    vectors: int
    jobs: list[int] = Field(description="Ids of the jobs that were cancelled.")
