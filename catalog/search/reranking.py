"""Ranks a page of neighbors: by cosine, or diversified, and with near-duplicates grouped."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from catalog.geometry.transforms import Geometry
from catalog.index.space_index import SearchHits, SpaceIndex, concatenate
from catalog.search import pools
from catalog.search.diversity import mmr_order, representatives
from catalog.vectors.numeric import inner_products, normalize, norms

POOL_FACTOR = 4  # candidates for each neighbor of a diversified page, or of a page in a geometry
MIN_DIVERSE_POOL = 64  # candidates of a diversified page
MIN_CANDIDATES = 256  # candidates of a page in a geometry
BLOCK_BYTES = 4 * 2**20  # of vectors that are transformed at once


@dataclass(frozen=True)
class PageOptions:
    """A page of `k` neighbors with cosines of at least `min_similarity`. `diversity` is from 0 (by cosine alone) to 1.
    Models with a cosine of at least `group_above` to one another are grouped (None: no grouping).
    """

    k: int = 10
    min_similarity: float = -1
    diversity: float = 0
    group_above: float | None = None

    @property
    def needs_vectors(self) -> bool:
        """Whether the neighbors are compared with one another."""
        return self.diversity > 0 or self.group_above is not None


@dataclass(frozen=True)
class RankedModel:
    """A model with its cosine to the query, and the ids and cosines of the near-duplicates grouped with it."""

    model_id: int
    cosine: float
    duplicates: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class CandidateFilter:
    """The models that may be found: those not in `exclude` and `allowed` (bool, by model id; None: all)."""

    exclude: Collection[int] = ()
    allowed: np.ndarray | None = None


@dataclass(frozen=True)
class PerBaseGeometry:
    """The geometry fitted to the query's base, and for each base that is searched its geometry and the models of it
    that may be found (bool, by model id; None: all). Each geometry only shifts and scales unit vectors.
    """

    query_geometry: Geometry
    bases: Sequence[tuple[Geometry, np.ndarray | None]]


def rank(
    index: SpaceIndex,
    vector: np.ndarray,
    page: PageOptions,
    candidates: CandidateFilter,
    geometry: Geometry | PerBaseGeometry | None = None,
    searches: int = 1,
) -> tuple[list[RankedModel], SearchHits]:
    """The ranked models of a page, and the hits from which they were ranked. With a geometry, all cosines to the query
    are taken in it. `searches` is the number of searches of the request, which share its candidates. The page has fewer
    models than `k` if `pools.largest_pool` is less.

    Raises `SearchBusy` and what `SpaceIndex.search` raises.
    """
    limit = pools.largest_pool(index.dimension, searches)
    groups = min(page.k if not page.diversity else max(POOL_FACTOR * page.k, MIN_DIVERSE_POOL), limit)
    pool = groups if page.group_above is None else min(2 * groups + 16, limit)
    most = min(pool if geometry is None else _candidate_count(pool), limit) if page.group_above is None else limit
    with pools.slot(most, index.dimension):
        while True:
            hits = nearest(index, vector, pool, page.min_similarity, candidates, geometry, limit)
            vectors = _comparison_vectors(hits, geometry) if page.needs_vectors else None
            leaders = _leaders(hits, vectors, page, groups)
            enough = len(np.unique(leaders)) >= groups or len(hits.model_ids) < pool
            if enough or pool >= limit:
                return _ranked_models(hits, vectors, leaders, page), hits
            pool = min(4 * pool, limit)


def nearest(
    index: SpaceIndex,
    vector: np.ndarray,
    k: int,
    min_similarity: float,
    candidates: CandidateFilter,
    geometry: Geometry | PerBaseGeometry | None,
    max_candidates: int,
) -> SearchHits:
    """The k nearest models with a cosine of at least `min_similarity`. With a geometry, the nearest by raw cosine are
    at most `max_candidates` candidates whose cosines are computed again in it. This is exact if the candidates are all
    models that may be found. Bases that are searched separately share the candidates.
    """
    if geometry is None:
        return index.search(
            vector, k, exclude=candidates.exclude, allowed=candidates.allowed, min_similarity=min_similarity
        )
    pool = min(_candidate_count(k), max_candidates)
    query = index.query(vector)
    if isinstance(geometry, PerBaseGeometry):
        image = geometry.query_geometry.apply(query[None])[0]
        bases = geometry.bases if image.any() else ()  # an image of zeros: the query is the average of its base
        pool = max(1, min(pool, max_candidates // max(1, len(bases))))
        searches = [
            _rescore(index, base.preimage_direction(image), image, base, pool, replace(candidates, allowed=allowed))
            for base, allowed in bases
        ]
    else:
        searches = [_rescore(index, query, geometry.apply(query[None])[0], geometry, pool, candidates)]
    if not searches:
        return SearchHits(np.empty(0, np.int64), np.empty(0, np.float32), index.covered_seq, index.generation)
    hits = concatenate(searches)
    order = np.argsort(-hits.cosines, kind="stable")[:k]
    order = order[hits.cosines[order] >= min_similarity]
    return hits.select(order, hits.cosines[order])


def _rescore(
    index: SpaceIndex,
    direction: np.ndarray,
    image: np.ndarray,
    geometry: Geometry,
    pool: int,
    candidates: CandidateFilter,
) -> SearchHits:
    """The `pool` models nearest to a direction by raw cosine, with their cosines in a geometry, where the query has the
    image `image`.
    """
    hits = index.search(direction, pool, exclude=candidates.exclude, allowed=candidates.allowed)
    if not len(hits.model_ids):
        return hits
    vectors, block = hits.vectors(), max(1, BLOCK_BYTES // (4 * index.dimension))
    cosines = np.concatenate(
        [_image_cosines(geometry, vectors[start : start + block], image) for start in range(0, len(vectors), block)]
    )
    return replace(hits, cosines=cosines, exact=hits.exact and len(hits.model_ids) < pool)


def _image_cosines(geometry: Geometry, vectors: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The cosines (n,) of the images of vectors (n, d) to an image."""
    images = geometry.apply(vectors)
    return np.clip(inner_products(images, image) / (norms(images) * norms(image)), -1, 1)


def _candidate_count(k: int) -> int:
    """The number of candidates of a page of k models in a geometry, if there is no other limit."""
    return max(MIN_CANDIDATES, POOL_FACTOR * k)


def _comparison_vectors(hits: SearchHits, geometry: Geometry | PerBaseGeometry | None) -> np.ndarray:
    """Unit vectors float32 (k, d) by which hits are compared with one another: raw vectors, or in a cross-base query
    each vector in the geometry of its base.
    """
    vectors = hits.vectors()
    for base, allowed in geometry.bases if isinstance(geometry, PerBaseGeometry) else ():
        in_base = slice(None) if allowed is None else allowed.take(hits.model_ids, mode="clip")
        vectors[in_base] = normalize(base.apply(vectors[in_base]))
    return vectors


def _leaders(hits: SearchHits, vectors: np.ndarray | None, page: PageOptions, groups: int) -> np.ndarray:
    """The index in the hits of the representative of each hit; itself if near-duplicates are not grouped."""
    if page.group_above is None or vectors is None:
        return np.arange(len(hits.model_ids))
    return representatives(vectors, page.group_above, groups)


def _ranked_models(
    hits: SearchHits, vectors: np.ndarray | None, leaders: np.ndarray, page: PageOptions
) -> list[RankedModel]:
    order = np.unique(leaders)  # hits are sorted by cosine, and so are these
    if page.diversity and vectors is not None and len(order):
        order = order[mmr_order(hits.cosines[order], vectors[order], page.k, page.diversity)]
    duplicates: dict[int, list[int]] = {}
    for index, leader in enumerate(leaders.tolist()):
        if index != leader:
            duplicates.setdefault(leader, []).append(index)
    return [
        RankedModel(*_hit(hits, leader), tuple(_hit(hits, index) for index in duplicates.get(leader, ())))
        for leader in order[: page.k].tolist()
    ]


def _hit(hits: SearchHits, index: int) -> tuple[int, float]:
    return int(hits.model_ids[index]), float(hits.cosines[index])
