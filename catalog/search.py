"""Questions to the index, answered with names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from catalog.database import Database
from catalog.errors import NoShift, SpaceMismatch, SpaceRequired
from catalog.index import Follower, Hits
from catalog.repository import models, spaces, vectors
from catalog.tables import Model, SpaceRow

DEFAULT_FEATURE = "delta_activations"
MAX_K = 1_000


@dataclass(frozen=True)
class Options:
    """How many neighbours at most, above which cosine, and in which space (None: the default one)."""

    k: int = 10
    min_similarity: float = -1
    space_key: str | None = None


DEFAULTS = Options()


@dataclass(frozen=True)
class Neighbour:
    """A model and its cosine to the query."""

    model: Model
    similarity: float


@dataclass(frozen=True)
class Answer:
    """Neighbours, best first, and what the answer rests on."""

    space: SpaceRow
    neighbours: list[Neighbour]
    covered_seq: int
    exact: bool


def by_model(database: Database, index: Follower, repo_id: str, options: Options = DEFAULTS) -> Answer:
    """The models nearest to an indexed one, itself left out.

    Raises `ModelNotFound`, `SpaceNotFound`, `NotIndexed`, `NoShift`, `IndexNotLoaded`.
    """
    with database.transaction() as session:
        query = vectors.newest(session, repo_id, feature=DEFAULT_FEATURE, space_key=options.space_key)
    if query.no_shift:
        raise NoShift(f"{repo_id} does not move its base measurably (norm {query.norm:.2g}), so nothing is near it.")
    hits = index.index(query.space.id, query.space.dimension).search(
        query.vector, options.k, exclude=[query.model.id], min_similarity=options.min_similarity
    )
    with database.transaction() as session:
        neighbours = models.by_ids(session, hits.model_ids.tolist())
    return _answer(query.space, hits, neighbours)


def by_vector(database: Database, index: Follower, vector: list[float], options: Options = DEFAULTS) -> Answer:
    """The models nearest to a vector of a space; the space may be left out while one alone has that dimension.

    Raises `SpaceNotFound`, `SpaceRequired`, `SpaceMismatch`, `InvalidVector`, `IndexNotLoaded`.
    """
    with database.transaction() as session:
        space = (
            spaces.get(session, options.space_key)
            if options.space_key
            else _only_space(spaces.page(session), len(vector))
        )
    hits = index.index(space.id, space.dimension).search(
        np.array(vector, dtype=np.float64), options.k, min_similarity=options.min_similarity
    )
    with database.transaction() as session:
        neighbours = models.by_ids(session, hits.model_ids.tolist())
    return _answer(space, hits, neighbours)


def _only_space(candidates: list[SpaceRow], dimension: int) -> SpaceRow:
    fitting = [space for space in candidates if space.dimension == dimension]
    if not fitting:
        raise SpaceMismatch(f"No space here has vectors of {dimension} entries. GET /v1/spaces lists them.")
    if len(fitting) > 1:
        raise SpaceRequired(f"{len(fitting)} spaces have {dimension} dimensions: name one with `space`.")
    return fitting[0]


def _answer(space: SpaceRow, hits: Hits, found: dict[int, Model]) -> Answer:
    pairs = zip(hits.model_ids.tolist(), hits.cosines.tolist(), strict=True)
    neighbours = [Neighbour(found[model_id], similarity) for model_id, similarity in pairs if model_id in found]
    return Answer(space, neighbours, hits.covered_seq, hits.exact)
