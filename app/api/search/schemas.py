"""What a search is asked and how it answers, as JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator

from app.api.schemas import FIRST_MISTAKE, MAX_DIMENSION, Space, SpaceName, Strict
from catalog.arithmetic.service import Question
from catalog.auth.viewer import Viewer
from catalog.errors import CatalogError
from catalog.geometry.transforms import LEAST_OF_A_BASE, RAW, SERVED, STANDARDISED
from catalog.index.filters import Filters
from catalog.models.repo_ref import RepoRef
from catalog.search import service as search_service
from catalog.search.reranking import Page
from catalog.search.service import Fitted

MAX_NAMED = 1_000  # names in one list of a filter
MAX_BATCH = 100  # models asked about at once
KINDS = f"^({'|'.join((RAW, *SERVED, STANDARDISED))})$"

MAX_EXPRESSION = 16_384  # characters; one that is not as much too long is told where it would have to end

Vector = Annotated[list[float], Field(min_length=1, max_length=MAX_DIMENSION), FIRST_MISTAKE]
Expression = Annotated[str, Field(max_length=MAX_EXPRESSION)]
Named = Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=MAX_NAMED), FIRST_MISTAKE]
Number = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Numbered = Annotated[list[Number], Field(max_length=MAX_NAMED), FIRST_MISTAKE]
At = Annotated[datetime, AfterValidator(lambda at: at if at.tzinfo else at.replace(tzinfo=UTC))]


class SearchFields(Strict):
    """What every search may ask for. Lists may be left empty; the fields of a filter all have to be met."""

    k: int = Field(10, ge=1, le=search_service.MAX_K)
    min_similarity: float = Field(-1, ge=-1, le=1)
    space: SpaceName = None
    geometry: str | None = Field(
        None, pattern=KINDS, description="What cosines are taken of; the best by measurement without."
    )
    base: Named = Field([], description="Of any of these base models.")
    owner: Named = Field([], description="Of any of these owners.")
    kind: Named = Field([], description="Of any of these kinds, such as `lora`.")
    licence: Named = Field([], description="Under any of these licences.")
    tag: Named = Field([], description="With every one of these tags.")
    cluster: Numbered = Field([], description="In any of these clusters.")
    min_downloads: int | None = Field(None, ge=0, lt=2**53)
    min_likes: int | None = Field(None, ge=0, lt=2**53)
    updated_since: At | None = Field(None, description="Changed on the Hub then or later; UTC where no zone is given.")
    exclude: Named = Field([], description="Repo ids that are not to be found.")
    diversity: float = Field(
        0, ge=0, le=1, description="0: by cosine. Above: neighbours that differ (maximal marginal relevance)."
    )
    group_above: float | None = Field(
        None, gt=0, le=1, description="Models with this cosine to each other come as one, with its `duplicates`."
    )
    unconfident: bool = Field(False, description="Also neighbours that noise and chance explain.")

    def options(self, viewer: Viewer, *, exclude_own_owner: bool = False) -> search_service.Options:
        """Raises `InvalidRepoId`."""
        return search_service.Options(
            page=Page(self.k, self.min_similarity, self.diversity, self.group_above),
            space_key=self.space,
            geometry=self.geometry,
            filters=Filters(
                bases=tuple(self.base),
                owners=tuple(self.owner),
                kinds=tuple(self.kind),
                licences=tuple(self.licence),
                tags=tuple(self.tag),
                clusters=tuple(self.cluster),
                min_downloads=self.min_downloads,
                min_likes=self.min_likes,
                updated_since=self.updated_since,
            ),
            exclude=tuple(RepoRef(repo_id).repo_id for repo_id in self.exclude),
            exclude_own_owner=exclude_own_owner,
            unconfident=self.unconfident,
            viewer=viewer,
        )


UnitTerms = Annotated[bool, Field(description="Take every term at length 1 instead of as it is.")]
OwnOwner = Annotated[bool, Field(description="Leave out the models of the query's own owner.")]


class NeighborsQuery(SearchFields):
    exclude_own_owner: OwnOwner = False


class SearchQuery(SearchFields):
    """A vector of a space, the repo id of an indexed model, or a sum of named vectors."""

    vector: Vector | None = None
    repo_id: str | None = Field(None, max_length=200)
    expression: Expression | None = Field(None, description="A sum such as `owner/law + 0.5*math - chat`.")
    unit_terms: UnitTerms = False
    include_terms: bool = Field(False, description="Also the models that the expression names.")
    compare: str | None = Field(
        None, max_length=200, description="Repo id of a model to hold the sum against; the known mixtures without."
    )
    exclude_own_owner: OwnOwner = False

    @model_validator(mode="after")
    def _one_query(self) -> Self:
        if sum(each is not None for each in (self.vector, self.repo_id, self.expression)) != 1:
            raise ValueError("give one of `vector`, `repo_id` and `expression`")
        if self.exclude_own_owner and self.repo_id is None:
            raise ValueError("only a model has an owner to exclude")
        if self.expression is None and (self.unit_terms or self.include_terms or self.compare is not None):
            raise ValueError("`unit_terms`, `include_terms` and `compare` go with an `expression`")
        return self

    def query(self) -> Question | list[float] | RepoRef:
        """What is asked about. Raises `InvalidRepoId`."""
        if self.vector is not None:
            return self.vector
        if self.expression is None:
            return RepoRef(self.repo_id or "")
        compare = RepoRef(self.compare).repo_id if self.compare is not None else None
        return Question(self.expression, self.unit_terms, self.include_terms, compare)


class BatchQuery(SearchFields):
    """Several indexed models, each asked about by itself."""

    repo_ids: Annotated[list[Annotated[str, Field(max_length=200)]], FIRST_MISTAKE] = Field(
        min_length=1, max_length=MAX_BATCH
    )
    k: int = Field(10, ge=1, le=100)
    exclude_own_owner: OwnOwner = False


class Twin(BaseModel):
    repo_id: str
    similarity: float


class Neighbor(BaseModel):
    repo_id: str
    similarity: float = Field(description="Cosine in the answer's geometry.")
    sha: str | None
    base: str | None
    kind: str | None
    duplicates: list[Twin] = Field(description="Near-duplicates that it stands for, where grouping was asked for.")

    @classmethod
    def of(cls, neighbour: search_service.Neighbour) -> Self:
        revision = neighbour.model.revision
        return cls(
            repo_id=neighbour.model.repo_id,
            similarity=neighbour.similarity,
            sha=revision.sha if revision else None,
            base=revision.base_repo if revision else None,
            kind=revision.kind if revision else None,
            duplicates=[Twin(repo_id=each.model.repo_id, similarity=each.similarity) for each in neighbour.duplicates],
        )


NOT_SERVING = (
    "This space does not serve: models that were measured under another contract are not in it. A reindex of the "
    "outdated ones (`deltadex reindex --outdated`) brings all together."
)
AS_THEY_ARE = (
    "Vectors are compared as they are, and what all fine-tunes of one base share outweighs what each learned: nearest "
    "are mostly models of the same base. Unless `geometry=raw` is asked for, a model is compared as it stands among "
    f"those of its base, once {LEAST_OF_A_BASE} of these are here and the clusters of this space were found since; a "
    "sum, or a vector of no base, never is."
)
LEFT_OUT = (
    f"{{}} models were not compared: {LEAST_OF_A_BASE} of a base have to be here, and the clusters of this space found "
    "since, to know how a model stands among those of its base. Ask with `geometry=raw` to see them too."
)
NO_CONFIDENT_NEIGHBOUR = (
    "No confident neighbour: nothing here is nearer than noise and chance explain (`noise_similarity`). "
    "Ask with `unconfident` to see what is nearest all the same."
)


class Geometry(BaseModel):
    """What cosines are taken of: vectors as they are (`raw`), or as a fitted geometry moves them; `standardised` by
    that of each model's own base, of which the query's is told.
    """

    kind: str
    fit: int | None = Field(description="Number of the fit; cosines of different fits do not compare.")
    models: int | None = Field(description="That it was fitted to.")

    @classmethod
    def of(cls, fitted: Fitted | None) -> Self:
        return (
            cls(kind=fitted.kind, fit=fitted.id, models=fitted.models)
            if fitted
            else cls(kind=RAW, fit=None, models=None)
        )


class Neighbors(BaseModel):
    """Neighbours, best first, and what they rest on."""

    space: Space
    geometry: Geometry
    exact: bool = Field(description="Whether every vector was compared; if not, nearly all near ones are found.")
    generation: int = Field(description="Of the main segment of the index; 0 where the space needs none.")
    covered_seq: int = Field(description="The last change of the catalog that the answer takes into account.")
    norm: float = Field(description="How far the query moves its base.")
    noise_floor: float | None = Field(description="How far noise moves that base; null where it was not measured.")
    noise_similarity: float | None = Field(description="The greatest cosine that noise and chance explain.")
    confident: bool | None = Field(description="Whether a neighbour is above that; null where it cannot be told.")
    note: str | None
    neighbors: list[Neighbor]

    @classmethod
    def of(cls, answer: search_service.Answer) -> Self:
        sure = answer.confidence
        return cls(
            space=Space.of(answer.space),
            geometry=Geometry.of(answer.fitted),
            exact=answer.exact,
            generation=answer.generation,
            covered_seq=answer.covered_seq,
            norm=sure.norm,
            noise_floor=sure.noise_floor,
            noise_similarity=sure.noise_similarity,
            confident=sure.confident,
            note=_note(answer),
            neighbors=[Neighbor.of(neighbour) for neighbour in answer.neighbours],
        )


def _note(answer: search_service.Answer) -> str | None:
    said = {
        NOT_SERVING: not answer.space.serving,
        AS_THEY_ARE: answer.space.base_repo is None and answer.fitted is None,
        LEFT_OUT.format(answer.left_out): answer.left_out > 0,
        NO_CONFIDENT_NEIGHBOUR: answer.confidence.confident is False,
    }
    return " ".join(sentence for sentence, holds in said.items() if holds) or None


class AnswerError(BaseModel):
    code: str
    message: str


class BatchAnswer(BaseModel):
    """What was found of one of the models asked about, or why nothing could be."""

    repo_id: str
    answer: Neighbors | None
    error: AnswerError | None

    @classmethod
    def of(cls, repo_id: str, answer: search_service.Answer | CatalogError) -> Self:
        if isinstance(answer, CatalogError):
            return cls(repo_id=repo_id, answer=None, error=AnswerError(code=answer.code, message=answer.message))
        return cls(repo_id=repo_id, answer=Neighbors.of(answer), error=None)


class BatchAnswers(BaseModel):
    answers: list[BatchAnswer]
