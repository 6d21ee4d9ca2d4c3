"""JSON of searches: requests and answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator

from app.api.schemas import FIRST_ERROR_ONLY, MAX_DIMENSION, Space, SpaceName, Strict, TeamTags
from catalog.arithmetic.service import ExpressionQuery
from catalog.auth.viewer import Viewer
from catalog.errors import CatalogError
from catalog.geometry.transforms import MIN_MODELS_PER_BASE, RAW, GeometryChoice
from catalog.index.filters import Filters
from catalog.models.repo_ref import RepoRef
from catalog.search import service as search_service
from catalog.search.reranking import PageOptions
from catalog.search.service import StoredGeometry

MAX_NAMES = 1_000  # in one list of a filter
MAX_BATCH = 100  # models in one batch search
MAX_EXPRESSION = 16_384  # characters; more than the parser accepts, because its error has the position of its limit

Vector = Annotated[list[float], Field(min_length=1, max_length=MAX_DIMENSION), FIRST_ERROR_ONLY]
Expression = Annotated[str, Field(max_length=MAX_EXPRESSION)]
Names = Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=MAX_NAMES), FIRST_ERROR_ONLY]
Id = Annotated[int, Field(ge=-(2**63), lt=2**63)]
GeometryField = Annotated[
    GeometryChoice,
    Field(description="`default`: compare in the default geometry of the feature. `raw`: compare raw vectors."),
]
Ids = Annotated[list[Id], Field(max_length=MAX_NAMES), FIRST_ERROR_ONLY]
UtcDatetime = Annotated[datetime, AfterValidator(lambda time: time if time.tzinfo else time.replace(tzinfo=UTC))]


class SearchFields(Strict):
    """The options of every search. Neighbors must meet all filters; an empty list does not filter."""

    k: int = Field(10, ge=1, le=search_service.MAX_K)
    min_similarity: float = Field(-1, ge=-1, le=1)
    space: SpaceName = None
    geometry: GeometryField = GeometryChoice.DEFAULT
    base: Names = Field([], description="Only fine-tunes of any of these base models.")
    owner: Names = Field([], description="Only models of any of these owners.")
    kind: Names = Field([], description="Only models of any of these kinds, such as `lora`.")
    license: Names = Field([], description="Only models under any of these licenses.")
    tag: Names = Field([], description="Only models with all of these tags of the Hub.")
    team_tag: TeamTags = Field([], description="Only models with all of these team tags.")
    cluster: Ids = Field([], description="Only models in any of these clusters.")
    min_downloads: int | None = Field(None, ge=0, lt=2**53)
    min_likes: int | None = Field(None, ge=0, lt=2**53)
    updated_since: UtcDatetime | None = Field(
        None, description="Only models changed on the Hub at this time or later. UTC if it has no time zone."
    )
    exclude: Names = Field([], description="Repo ids to leave out.")
    diversity: float = Field(
        0,
        ge=0,
        le=1,
        description="0: rank by cosine. Above 0: prefer neighbors that differ (maximal marginal relevance).",
    )
    group_above: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Group models with at least this cosine to one another: one is a neighbor, the others its "
        "`duplicates`.",
    )
    include_low_confidence: bool = Field(
        False, description="Return neighbors even if noise and chance explain their cosines."
    )

    def options(self, viewer: Viewer, *, exclude_own_owner: bool = False) -> search_service.SearchOptions:
        """Raises `InvalidRepoId`."""
        return search_service.SearchOptions(
            page=PageOptions(self.k, self.min_similarity, self.diversity, self.group_above),
            space_key=self.space,
            geometry=self.geometry,
            filters=Filters(
                bases=tuple(self.base),
                owners=tuple(self.owner),
                kinds=tuple(self.kind),
                licenses=tuple(self.license),
                tags=tuple(self.tag),
                team_tags=tuple(self.team_tag),
                clusters=tuple(self.cluster),
                min_downloads=self.min_downloads,
                min_likes=self.min_likes,
                updated_since=self.updated_since,
            ),
            exclude=tuple(RepoRef(repo_id).repo_id for repo_id in self.exclude),
            exclude_own_owner=exclude_own_owner,
            include_low_confidence=self.include_low_confidence,
            viewer=viewer,
        )


UnitTerms = Annotated[bool, Field(description="Scale every term to length 1.")]
ExcludeOwnOwner = Annotated[bool, Field(description="Leave out the models of the query model's owner.")]


class NeighborsQuery(SearchFields):
    exclude_own_owner: ExcludeOwnOwner = False


class SearchQuery(SearchFields):
    """A vector of a space, the repo id of an indexed model, or a sum of named vectors."""

    vector: Vector | None = None
    repo_id: str | None = Field(None, max_length=200)
    expression: Expression | None = Field(None, description="A sum such as `owner/law + 0.5*math - chat`.")
    unit_terms: UnitTerms = False
    include_terms: bool = Field(False, description="Allow the models in the expression as neighbors.")
    compare: str | None = Field(
        None,
        max_length=200,
        description="Repo id of a model to compare the sum with. By default, the known mixtures of the terms.",
    )
    exclude_own_owner: ExcludeOwnOwner = False

    @model_validator(mode="after")
    def _one_query(self) -> Self:
        if sum(field is not None for field in (self.vector, self.repo_id, self.expression)) != 1:
            raise ValueError("exactly one of `vector`, `repo_id` and `expression` is required")
        if self.exclude_own_owner and self.repo_id is None:
            raise ValueError("`exclude_own_owner` requires `repo_id`")
        if self.expression is None and (self.unit_terms or self.include_terms or self.compare is not None):
            raise ValueError("`unit_terms`, `include_terms` and `compare` require `expression`")
        return self

    def query(self) -> ExpressionQuery | list[float] | RepoRef:
        """The query in the form that the service expects. Raises `InvalidRepoId`."""
        if self.vector is not None:
            return self.vector
        if self.expression is None:
            return RepoRef(self.repo_id or "")
        compare = RepoRef(self.compare).repo_id if self.compare is not None else None
        return ExpressionQuery(self.expression, self.unit_terms, self.include_terms, compare)


class BatchQuery(SearchFields):
    """A search for each of several indexed models."""

    repo_ids: Annotated[list[Annotated[str, Field(max_length=200)]], FIRST_ERROR_ONLY] = Field(
        min_length=1, max_length=MAX_BATCH
    )
    k: int = Field(10, ge=1, le=100)
    exclude_own_owner: ExcludeOwnOwner = False


class Duplicate(BaseModel):
    repo_id: str
    similarity: float


class Neighbor(BaseModel):
    repo_id: str
    similarity: float = Field(description="Cosine in the answer's geometry.")
    sha: str | None
    base: str | None
    kind: str | None
    duplicates: list[Duplicate] = Field(description="Near-duplicates grouped with it; empty without `group_above`.")

    @classmethod
    def from_neighbor(cls, neighbor: search_service.Neighbor) -> Self:
        revision = neighbor.model.revision
        return cls(
            repo_id=neighbor.model.repo_id,
            similarity=neighbor.similarity,
            sha=revision.sha if revision else None,
            base=revision.base_repo if revision else None,
            kind=revision.kind if revision else None,
            duplicates=[
                Duplicate(repo_id=duplicate.model.repo_id, similarity=duplicate.similarity)
                for duplicate in neighbor.duplicates
            ],
        )


NOT_SERVING = (
    "This is not a serving space: models that were measured under another contract are not in it. Reindex the outdated "
    "models (`deltadex reindex --outdated`) to have all models in one space."
)
COMPARED_RAW = (
    "Raw vectors were compared, and what all fine-tunes of one base share outweighs what each of them learned: the "
    "nearest models are mostly of the same base. Unless the request says `geometry=raw`, a model is compared "
    f"relative to the other models of its base, once {MIN_MODELS_PER_BASE} of them are indexed and the clusters of the "
    "space have been computed since. A sum, or a vector of no base, is always compared raw."
)
NOT_COMPARED = (
    f"{{}} models were not compared: at least {MIN_MODELS_PER_BASE} models of their base must be indexed, and the "
    "clusters of this space computed since. Use `geometry=raw` to include them."
)
NO_CONFIDENT_NEIGHBOR = (
    "No confident neighbor: no model is nearer than noise and chance explain (`noise_similarity`). "
    "Set `include_low_confidence` to see the nearest models anyway."
)


class Geometry(BaseModel):
    """The geometry in which cosines were computed: `raw`, or one that was fitted to the space. `standardized` is fitted
    to each base separately; `fit` and `models` are then those of the query's base.
    """

    kind: str
    fit: int | None = Field(description="Id of the fit, null for `raw`. Cosines of different fits do not compare.")
    models: int | None = Field(description="Number of models that it was fitted to.")

    @classmethod
    def from_fitted(cls, fitted: StoredGeometry | None) -> Self:
        return (
            cls(kind=fitted.kind, fit=fitted.id, models=fitted.models)
            if fitted
            else cls(kind=RAW, fit=None, models=None)
        )


class Neighbors(BaseModel):
    """Neighbors, best first, with the space, geometry and index in which they were found."""

    space: Space
    geometry: Geometry
    exact: bool = Field(description="Whether all vectors were compared. If not, a few neighbors may be missing.")
    generation: int = Field(description="The generation of the index's main segment; 0 if the space has none.")
    covered_seq: int = Field(description="The last change of the catalog that the answer covers.")
    norm: float = Field(description="The norm of the query's vector.")
    noise_floor: float | None = Field(description="The norm that noise explains; null if it was not measured.")
    chance_similarity: float = Field(
        description="The cosine that the nearest of as many independent directions as the space has models would reach."
    )
    unrelated_similarity: float | None = Field(
        description="The raw cosine that nine of ten models of the space do not exceed to any model of another "
        "cluster; null until its clusters are computed, and for spaces that span bases."
    )
    noise_similarity: float | None = Field(
        description="The greatest cosine that noise and chance explain: the noise floor's share of the norm, plus "
        "`unrelated_similarity`, or `chance_similarity` if that is null. Null if the noise floor is unknown."
    )
    confident: bool | None = Field(
        description="Whether a neighbor's cosine is above `noise_similarity`; null if the noise floor is unknown."
    )
    note: str | None
    neighbors: list[Neighbor]

    @classmethod
    def from_answer(cls, answer: search_service.SearchAnswer) -> Self:
        confidence = answer.confidence
        return cls(
            space=Space.from_row(answer.space),
            geometry=Geometry.from_fitted(answer.fitted),
            exact=answer.exact,
            generation=answer.generation,
            covered_seq=answer.covered_seq,
            norm=confidence.norm,
            noise_floor=confidence.noise_floor,
            chance_similarity=confidence.chance_similarity,
            unrelated_similarity=confidence.unrelated_similarity,
            noise_similarity=confidence.noise_similarity,
            confident=confidence.confident,
            note=_note(answer),
            neighbors=[Neighbor.from_neighbor(neighbor) for neighbor in answer.neighbors],
        )


def _note(answer: search_service.SearchAnswer) -> str | None:
    notes = {
        NOT_SERVING: not answer.space.serving,
        COMPARED_RAW: answer.space.base_repo is None and answer.fitted is None,
        NOT_COMPARED.format(answer.not_compared): answer.not_compared > 0,
        NO_CONFIDENT_NEIGHBOR: answer.confidence.confident is False,
    }
    return " ".join(note for note, applies in notes.items() if applies) or None


class AnswerError(BaseModel):
    code: str
    message: str


class BatchAnswer(BaseModel):
    """The answer for one model of a batch search, or the error if it has none."""

    repo_id: str
    answer: Neighbors | None
    error: AnswerError | None

    @classmethod
    def from_answer(cls, repo_id: str, answer: search_service.SearchAnswer | CatalogError) -> Self:
        if isinstance(answer, CatalogError):
            return cls(repo_id=repo_id, answer=None, error=AnswerError(code=answer.code, message=answer.message))
        return cls(repo_id=repo_id, answer=Neighbors.from_answer(answer), error=None)


class BatchAnswers(BaseModel):
    answers: list[BatchAnswer]
