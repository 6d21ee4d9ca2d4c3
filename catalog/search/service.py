"""Questions to the index, answered with names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from sqlalchemy.orm import Session

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.database import Database
from catalog.errors import CatalogError, GeometryNotFitted, NoShift, SpaceMismatch, SpaceRequired
from catalog.geometry.repository import Fitted, Place
from catalog.geometry.transforms import DEFAULTS_BY_FEATURE, LEAST_MODELS, RAW
from catalog.index.filters import NO_FILTERS, Filters
from catalog.index.follower import Follower
from catalog.index.space_index import Hits, SpaceIndex
from catalog.models.repository import models
from catalog.search.confidence import noise_similarity
from catalog.search.cross_base import Lens, lens
from catalog.search.reranking import Limits, Page, Pick, pick
from catalog.spaces import repository as spaces
from catalog.tables import Model, SpaceRow
from catalog.vectors.repository import vectors
from catalog.vectors.repository.vectors import Stored

MAX_K = 1_000
DEFAULT_PAGE = Page()


@dataclass(frozen=True)
class Options:
    """What page of neighbours, in which space (its key, or a feature's name) and geometry (None: the default ones), of
    which models. `exclude` has repo ids; `unconfident` asks for neighbours also where none is confident; what the
    `viewer` may not see is as if it were not there.
    """

    page: Page = DEFAULT_PAGE
    space_key: str | None = None
    geometry: str | None = None
    filters: Filters = NO_FILTERS
    exclude: tuple[str, ...] = ()
    exclude_own_owner: bool = False
    unconfident: bool = False
    viewer: Viewer = PUBLIC


DEFAULTS = Options()


@dataclass(frozen=True)
class Neighbour:
    """A model, its cosine to the query in the answer's geometry, and near-duplicates of it that it stands for."""

    model: Model
    similarity: float
    duplicates: tuple[Neighbour, ...] = ()


@dataclass(frozen=True)
class Confidence:
    """How sure an answer can be: the query's norm, the noise floor of its base (a norm), the cosine that noise and
    chance explain, and whether a neighbour is above it. None where no noise floor was measured.
    """

    norm: float
    noise_floor: float | None
    noise_similarity: float | None
    confident: bool | None


@dataclass(frozen=True)
class Answer:
    """Neighbours, best first, and what the answer rests on; `generation` is 0 without a main segment, and `fitted` is
    None where vectors are compared as they are. In a space that spans bases it is that of the query's own, and models
    of bases for which there is none are `left_out`.
    """

    space: SpaceRow
    fitted: Fitted | None
    neighbours: list[Neighbour]
    covered_seq: int
    generation: int
    exact: bool
    confidence: Confidence
    left_out: int = 0


@dataclass(frozen=True)
class _Query:
    """A vector to search with, and what its confidence depends on."""

    space: SpaceRow
    vector: np.ndarray
    norm: float
    noise_floor: float | None
    model: Model | None = None
    base: str | None = None

    @classmethod
    def of(cls, stored: Stored) -> _Query:
        """Raises `NoShift`."""
        if stored.no_shift:
            raise NoShift(
                f"{stored.model.repo_id} does not move its base measurably (norm {stored.norm:.2g}), "
                "so nothing is near it."
            )
        base = stored.revision.base_repo
        return cls(stored.space, stored.vector, stored.norm, stored.noise_floor, stored.model, base)


def by_model(database: Database, index: Follower, repo_id: str, options: Options = DEFAULTS) -> Answer:
    """The models nearest to an indexed one, itself left out.

    Raises `ModelNotFound`, `SpaceNotFound`, `NotIndexed`, `NoShift`, `GeometryNotFitted`, `IndexNotLoaded`.
    """
    [answer] = by_models(database, index, [repo_id], options)
    if isinstance(answer, CatalogError):
        raise answer
    return answer


def by_models(
    database: Database, index: Follower, repo_ids: Sequence[str], options: Options = DEFAULTS
) -> list[Answer | CatalogError]:
    """As `by_model` for several models at once, in their order: what cannot be answered is an error in its place.

    Raises `SpaceNotFound`, `GeometryNotFitted` and `IndexNotLoaded` itself.
    """
    with database.transaction() as session:
        found = vectors.newest_of(session, repo_ids, space_key=options.space_key, viewer=options.viewer)
        excluded = models.ids(session, options.exclude) if options.exclude else []
    queries: list[_Query | CatalogError] = []
    for repo_id in repo_ids:
        stored = found[repo_id]
        try:
            queries.append(stored if isinstance(stored, CatalogError) else _Query.of(stored))
        except NoShift as error:
            queries.append(error)
    return _answers(database, index, queries, excluded, options)


def by_vector(database: Database, index: Follower, vector: list[float], options: Options = DEFAULTS) -> Answer:
    """The models nearest to a vector of a space; the space may be left out while one alone has that dimension.

    Raises `SpaceNotFound`, `SpaceRequired`, `SpaceMismatch`, `InvalidVector`, `GeometryNotFitted`, `IndexNotLoaded`.
    """
    with database.transaction() as session:
        space = space_of(session, options.space_key, len(vector), options.viewer)
        floor = spaces.noise_floor(session, space.id)
        excluded = models.ids(session, options.exclude) if options.exclude else []
    return near(database, index, space, np.array(vector, dtype=np.float64), floor, options, excluded)


def near(
    database: Database,
    index: Follower,
    space: SpaceRow,
    vector: np.ndarray,
    noise_floor: float | None,
    options: Options,
    excluded: Sequence[int],
) -> Answer:
    """The models nearest to a vector (d,) of a space, apart from those with the ids `excluded`; noise explains so much
    of it (a norm; None: not measured).

    Raises `SpaceMismatch`, `InvalidVector`, `GeometryNotFitted`, `IndexNotLoaded`.
    """
    query = _Query(space, vector, math.hypot(*vector), noise_floor)
    [answer] = _answers(database, index, [query], excluded, options)
    assert isinstance(answer, Answer)
    return answer


def space_of(session: Session, key: str | None, dimension: int, viewer: Viewer = PUBLIC) -> SpaceRow:
    """The space of that key, or else, of those of that name, the only one of that dimension that serves, or that there
    is. Raises `SpaceNotFound`, `SpaceMismatch`, `SpaceRequired`.
    """
    known = spaces.of_name(session, key, viewer) if key is not None else spaces.page(session, viewer)
    if key is not None and len(known) == 1:
        return known[0]
    alike = [space for space in known if space.dimension == dimension]
    fitting = [space for space in alike if space.serving] or alike
    if not fitting:
        raise SpaceMismatch(f"No space here has vectors of {dimension} entries. GET /v1/spaces lists them.")
    if len(fitting) > 1:
        raise SpaceRequired(f"{len(fitting)} spaces have {dimension} dimensions: name one with `space`.")
    return fitting[0]


def _answers(
    database: Database,
    index: Follower,
    queries: Sequence[_Query | CatalogError],
    excluded: Sequence[int],
    options: Options,
) -> list[Answer | CatalogError]:
    """Search for each, then ask for all the names at once."""
    drafts: list[_Draft | CatalogError] = [
        query if isinstance(query, CatalogError) else _search(index, query, excluded, options) for query in queries
    ]
    wanted = {each for draft in drafts if isinstance(draft, _Draft) for each in draft.model_ids()}
    with database.transaction() as session:
        named = models.by_ids(session, wanted, options.viewer)
    return [draft if isinstance(draft, CatalogError) else draft.named(named) for draft in drafts]


@dataclass(frozen=True)
class _Draft:
    """An answer in which models are numbers."""

    space: SpaceRow
    fitted: Fitted | None
    picks: list[Pick]
    hits: Hits
    confidence: Confidence
    left_out: int

    def model_ids(self) -> list[int]:
        return [each for pick in self.picks for each in (pick.model_id, *(twin for twin, _ in pick.duplicates))]

    def named(self, found: dict[int, Model]) -> Answer:
        neighbours = [
            Neighbour(
                found[pick.model_id],
                pick.cosine,
                tuple(Neighbour(found[twin], cosine) for twin, cosine in pick.duplicates if twin in found),
            )
            for pick in self.picks
            if pick.model_id in found
        ]
        hits = self.hits
        rests_on = (hits.covered_seq, hits.generation, hits.exact, self.confidence, self.left_out)
        return Answer(self.space, self.fitted, neighbours, *rests_on)


def _search(index: Follower, query: _Query, excluded: Sequence[int], options: Options) -> _Draft:
    filters, exclude = options.filters, list(excluded)
    if query.model is not None:
        exclude.append(query.model.id)
        if options.exclude_own_owner:
            filters = replace(filters, not_owners=(*filters.not_owners, query.model.owner))
    space = index.index(query.space.id, query.space.dimension)
    visible = index.allowed(NO_FILTERS, options.viewer)
    allowed = index.allowed(filters, options.viewer) if filters != NO_FILTERS else visible
    found: Lens | Fitted | None
    if query.space.base_repo is None:
        found = lens(index, space, query.base, options.geometry, filters, options.viewer)
    else:
        found = _fitted(query.space, space, options.geometry)
    limits = Limits(exclude, allowed)
    picks, hits = pick(space, query.vector, options.page, limits, found.geometry if found else None)
    confidence = _confidence(query, space, picks, limits, found, space.count(visible))
    if confidence.confident is False and not options.unconfident:
        picks = []
    fitted, left_out = (found.fitted, found.left_out) if isinstance(found, Lens) else (found, 0)
    return _Draft(query.space, fitted, picks, hits, confidence, left_out)


def _fitted(row: SpaceRow, index: SpaceIndex, kind: str | None) -> Fitted | None:
    """The geometry to compare in: that of a kind, or by default the best by measurement once enough models are in.

    Raises `GeometryNotFitted`.
    """
    if kind is None:
        default = index.geometries.get(Place(DEFAULTS_BY_FEATURE.get(row.feature, RAW)))
        return default if default and default.models >= LEAST_MODELS else None
    if kind != RAW and Place(kind) not in index.geometries:
        raise GeometryNotFitted(
            f"No geometry {kind!r} has been fitted to this space yet: that is done whenever its clusters are found. "
            "Ask with `geometry=raw` meanwhile."
        )
    return index.geometries.get(Place(kind))


def _confidence(
    query: _Query, index: SpaceIndex, picks: list[Pick], limits: Limits, found: Lens | Fitted | None, models: int
) -> Confidence:
    """Among that many `models`. Told by cosines of the vectors as they are, whatever the geometry: noise is known of
    those. Across bases by those of the answer: as they are, all vectors are near.
    """
    if query.noise_floor is None:
        return Confidence(query.norm, None, None, None)
    noise = noise_similarity(query.noise_floor, query.norm, models, query.space.dimension)
    nearest = [each.cosine for each in picks]
    if isinstance(found, Fitted) and picks:
        nearest = index.search(query.vector, 1, exclude=limits.exclude, allowed=limits.allowed).cosines.tolist()
    return Confidence(query.norm, query.noise_floor, noise, any(cosine > noise for cosine in nearest))
