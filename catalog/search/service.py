"""Searches by model or by vector: the nearest models of a space, with their names and how confident the answer is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from sqlalchemy.orm import Session

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.database import Database
from catalog.errors import CatalogError, NoShift, SpaceMismatch, SpaceRequired
from catalog.geometry.repository import GeometryKey, StoredGeometry
from catalog.geometry.transforms import MIN_MODELS, GeometryChoice, default_kind
from catalog.index.filters import NO_FILTERS, Filters
from catalog.index.follower import IndexFollower
from catalog.index.space_index import SpaceIndex
from catalog.models.repository import models
from catalog.search.confidence import chance_similarity, noise_similarity
from catalog.search.cross_base import CrossBaseQuery, cross_base_query
from catalog.search.reranking import CandidateFilter, PageOptions, RankedModel, rank
from catalog.spaces import repository as spaces
from catalog.tables import Model, SpaceRow
from catalog.vectors.repository import vectors
from catalog.vectors.repository.vectors import StoredEncoding

MAX_K = 1_000
DEFAULT_PAGE_OPTIONS = PageOptions()


@dataclass(frozen=True)
class SearchOptions:
    """The options of a search. `space_key` is the key of a space or the name of a feature; `exclude` lists repo ids;
    `exclude_own_owner` leaves out the models of the query's owner; `include_low_confidence` returns neighbors even if
    none is confident. Models that the `viewer` may not see are treated as if they did not exist.
    """

    page: PageOptions = DEFAULT_PAGE_OPTIONS
    space_key: str | None = None
    geometry: GeometryChoice = GeometryChoice.DEFAULT
    filters: Filters = NO_FILTERS
    exclude: tuple[str, ...] = ()
    exclude_own_owner: bool = False
    include_low_confidence: bool = False
    viewer: Viewer = PUBLIC


DEFAULT_OPTIONS = SearchOptions()


@dataclass(frozen=True)
class Neighbor:
    """A model, its cosine to the query in the answer's geometry, and the near-duplicates that are grouped with it."""

    model: Model
    similarity: float
    duplicates: tuple[Neighbor, ...] = ()


@dataclass(frozen=True)
class Confidence:
    """The confidence of an answer: the query's norm, the noise floor of its base (a norm), the cosine that noise and
    chance explain, and whether a neighbor is above it. None if no noise floor was measured.

    Chance explains `unrelated_similarity`, which was measured for the space, or `chance_similarity` if it is None.
    """

    norm: float
    chance_similarity: float
    unrelated_similarity: float | None
    noise_floor: float | None = None
    noise_similarity: float | None = None
    confident: bool | None = None


@dataclass(frozen=True)
class SearchAnswer:
    """Neighbors, best first, and how they were found. `generation` is 0 without a main segment. `fitted` is None
    if raw vectors were compared; in a space that spans bases it is the geometry of the query's base, and `not_compared`
    counts the models of bases that have none.
    """

    space: SpaceRow
    fitted: StoredGeometry | None
    neighbors: list[Neighbor]
    covered_seq: int
    generation: int
    exact: bool
    confidence: Confidence
    not_compared: int = 0


@dataclass(frozen=True)
class _Query:
    """A vector to search with. `model` and `base` are None unless the vector is that of a model."""

    space: SpaceRow
    vector: np.ndarray
    norm: float
    noise_floor: float | None
    model: Model | None = None
    base: str | None = None

    @classmethod
    def from_encoding(cls, encoding: StoredEncoding) -> _Query:
        """Raises `NoShift`."""
        if encoding.no_shift:
            raise NoShift(
                f"{encoding.model.repo_id} is indistinguishable from its base model (its norm {encoding.norm:.2g} is "
                "within the noise floor), so it has no neighbors."
            )
        base = encoding.revision.base_repo
        return cls(encoding.space, encoding.vector, encoding.norm, encoding.noise_floor, encoding.model, base)


def by_model(
    database: Database, index: IndexFollower, repo_id: str, options: SearchOptions = DEFAULT_OPTIONS
) -> SearchAnswer:
    """The models nearest to an indexed model, without the model itself.

    Raises `ModelNotFound`, `SpaceNotFound`, `NotIndexed`, `NoShift`, `IndexNotLoaded`.
    """
    [answer] = by_models(database, index, [repo_id], options)
    if isinstance(answer, CatalogError):
        raise answer
    return answer


def by_models(
    database: Database, index: IndexFollower, repo_ids: Sequence[str], options: SearchOptions = DEFAULT_OPTIONS
) -> list[SearchAnswer | CatalogError]:
    """`by_model` for several models, in their order. The answer for a model that has none is an error.

    Raises `SpaceNotFound`, `IndexNotLoaded`.
    """
    with database.transaction() as session:
        encodings = vectors.get_encodings(session, repo_ids, space_key=options.space_key, viewer=options.viewer)
        excluded = models.list_ids(session, options.exclude, options.viewer) if options.exclude else []
    queries: list[_Query | CatalogError] = []
    for repo_id in repo_ids:
        encoding = encodings[repo_id]
        try:
            queries.append(encoding if isinstance(encoding, CatalogError) else _Query.from_encoding(encoding))
        except NoShift as error:
            queries.append(error)
    return _answers(database, index, queries, excluded, options)


def by_vector(
    database: Database, index: IndexFollower, vector: list[float], options: SearchOptions = DEFAULT_OPTIONS
) -> SearchAnswer:
    """The models nearest to a vector of a space. The space need not be named if only one has that dimension.

    Raises `SpaceNotFound`, `SpaceRequired`, `SpaceMismatch`, `InvalidVector`, `IndexNotLoaded`.
    """
    with database.transaction() as session:
        space = resolve_space(session, options.space_key, len(vector), options.viewer)
        noise_floor = spaces.max_noise_floor(session, space.id)
        excluded = models.list_ids(session, options.exclude, options.viewer) if options.exclude else []
    return by_space_vector(database, index, space, np.array(vector, dtype=np.float64), noise_floor, options, excluded)


def by_space_vector(
    database: Database,
    index: IndexFollower,
    space: SpaceRow,
    vector: np.ndarray,
    noise_floor: float | None,
    options: SearchOptions,
    excluded: Sequence[int],
) -> SearchAnswer:
    """The models nearest to a vector (d,) of a space, without those with the ids `excluded`. `noise_floor` is the norm
    of the vector that noise explains (None: not measured).

    Raises `SpaceMismatch`, `InvalidVector`, `IndexNotLoaded`.
    """
    query = _Query(space, vector, math.hypot(*vector), noise_floor)
    [answer] = _answers(database, index, [query], excluded, options)
    assert isinstance(answer, SearchAnswer)
    return answer


def resolve_space(session: Session, key: str | None, dimension: int, viewer: Viewer = PUBLIC) -> SpaceRow:
    """The space with this key. Without a key, or if it names several spaces, the only serving space of that dimension,
    or the only space of it. Raises `SpaceNotFound`, `SpaceMismatch`, `SpaceRequired`.
    """
    candidates = spaces.find_by_name(session, key, viewer) if key is not None else spaces.list_visible(session, viewer)
    if key is not None and len(candidates) == 1:
        return candidates[0]
    of_dimension = [space for space in candidates if space.dimension == dimension]
    matching = [space for space in of_dimension if space.serving] or of_dimension
    if not matching:
        raise SpaceMismatch(f"No space has vectors of {dimension} entries. GET /v1/spaces lists the spaces.")
    if len(matching) > 1:
        raise SpaceRequired(f"{len(matching)} spaces have {dimension} dimensions. Name one with `space`.")
    return matching[0]


def _answers(
    database: Database,
    index: IndexFollower,
    queries: Sequence[_Query | CatalogError],
    excluded: Sequence[int],
    options: SearchOptions,
) -> list[SearchAnswer | CatalogError]:
    """Run all searches, then load the models of all answers in one statement."""
    drafts: list[_UnnamedAnswer | CatalogError] = [
        query if isinstance(query, CatalogError) else _search(index, query, excluded, options, len(queries))
        for query in queries
    ]
    model_ids = {model_id for draft in drafts if isinstance(draft, _UnnamedAnswer) for model_id in draft.model_ids()}
    with database.transaction() as session:
        models_by_id = models.get_by_ids(session, model_ids, options.viewer)
    return [draft if isinstance(draft, CatalogError) else draft.with_models(models_by_id) for draft in drafts]


@dataclass(frozen=True)
class _UnnamedAnswer:
    """An answer that has model ids in place of models."""

    space: SpaceRow
    fitted: StoredGeometry | None
    ranked: list[RankedModel]
    covered_seq: int
    generation: int
    exact: bool
    confidence: Confidence
    not_compared: int

    def model_ids(self) -> list[int]:
        return [
            model_id
            for ranked in self.ranked
            for model_id in (ranked.model_id, *(duplicate_id for duplicate_id, _ in ranked.duplicates))
        ]

    def with_models(self, models_by_id: dict[int, Model]) -> SearchAnswer:
        """The answer with those of its models that are in `models_by_id`, and so may be seen."""
        neighbors = [
            Neighbor(
                models_by_id[ranked.model_id],
                ranked.cosine,
                tuple(
                    Neighbor(models_by_id[model_id], cosine)
                    for model_id, cosine in ranked.duplicates
                    if model_id in models_by_id
                ),
            )
            for ranked in self.ranked
            if ranked.model_id in models_by_id
        ]
        return SearchAnswer(
            space=self.space,
            fitted=self.fitted,
            neighbors=neighbors,
            covered_seq=self.covered_seq,
            generation=self.generation,
            exact=self.exact,
            confidence=self.confidence,
            not_compared=self.not_compared,
        )


def _search(
    index: IndexFollower, query: _Query, excluded: Sequence[int], options: SearchOptions, searches: int
) -> _UnnamedAnswer:
    """The answer to one of the `searches` of a request."""
    filters, exclude = options.filters, list(excluded)
    if query.model is not None:
        exclude.append(query.model.id)
        if options.exclude_own_owner:
            filters = replace(filters, not_owners=(*filters.not_owners, query.model.owner))
    space = index.index(query.space.id, query.space.dimension)
    visible = index.allowed(NO_FILTERS, options.viewer)
    allowed = index.allowed(filters, options.viewer) if filters != NO_FILTERS else visible
    comparison: CrossBaseQuery | StoredGeometry | None
    if options.geometry is GeometryChoice.RAW:
        comparison = None
    elif query.space.base_repo is None:
        comparison = cross_base_query(index, space, query.base, filters, options.viewer)
    else:
        comparison = _default_geometry(query.space, space)
    candidates = CandidateFilter(exclude, allowed)
    geometry = comparison.geometry if comparison else None
    ranked, hits = rank(space, query.vector, options.page, candidates, geometry, searches)
    confidence = _confidence(query, space, ranked, candidates, comparison, space.count(visible))
    if confidence.confident is False and not options.include_low_confidence:
        ranked = []
    return _UnnamedAnswer(
        query.space,
        comparison.fitted if isinstance(comparison, CrossBaseQuery) else comparison,
        ranked,
        hits.covered_seq,
        hits.generation,
        hits.exact,
        confidence,
        comparison.not_compared if isinstance(comparison, CrossBaseQuery) else 0,
    )


def _default_geometry(row: SpaceRow, index: SpaceIndex) -> StoredGeometry | None:
    """The default geometry of a space. None if raw vectors are compared: always for some features, and for all of them
    until a geometry is fitted to `MIN_MODELS` models.
    """
    default = index.geometries.get(GeometryKey(default_kind(row.feature)))
    return default if default and default.models >= MIN_MODELS else None


def _confidence(
    query: _Query,
    index: SpaceIndex,
    ranked: list[RankedModel],
    candidates: CandidateFilter,
    comparison: CrossBaseQuery | StoredGeometry | None,
    models: int,
) -> Confidence:
    """The confidence of an answer from a space with `models` models. The noise floor is that of raw vectors, so raw
    cosines are compared with it in every geometry. The exception is a cross-base query, whose raw vectors are all near
    each other: there the answer's cosines are compared.
    """
    chance, unrelated = chance_similarity(models, query.space.dimension), query.space.unrelated_similarity
    if query.noise_floor is None:
        return Confidence(query.norm, chance, unrelated)
    noise = noise_similarity(query.noise_floor, query.norm, chance if unrelated is None else unrelated)
    cosines = [model.cosine for model in ranked]
    if isinstance(comparison, StoredGeometry) and ranked:
        nearest = index.search(query.vector, 1, exclude=candidates.exclude, allowed=candidates.allowed)
        cosines = nearest.cosines.tolist()
    confident = any(cosine > noise for cosine in cosines)
    return Confidence(query.norm, chance, unrelated, query.noise_floor, noise, confident)
