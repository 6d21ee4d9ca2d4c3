"""Ranks a page of neighbors: by cosine, or diversified, and with near-duplicates grouped."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from catalog.geometry.transforms import Geometry
from catalog.index.space_index import SearchHits, SpaceIndex, concatenate
from catalog.search.diversity import mmr_order, representatives
from catalog.vectors.numeric import inner_products, normalize, norms

POOL_FACTOR = 4  # candidates for each neighbor of a diversified page, or of a page in a geometry
MIN_DIVERSE_POOL = 64  # candidates of a diversified page
MAX_POOL = 4_096  # candidates among which near-duplicates are grouped
MIN_CANDIDATES = 256  # candidates of a page in a geometry


@dataclass(frozen=True)
class PageOptions:
    """A page of `k` neighbors with cosines of at least `min_similarity`. `diversity` is from 0 (by cosine alone) to 1.
    Models with a cosine of at least `group_above` to one another are grouped (None: no grouping).
    """

    k: int = 10
    min_similarity: float = -1
    diversity: float = 0
    group_above: float | None = None


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
) -> tuple[list[RankedModel], SearchHits]:
    """The ranked models of a page, and the hits from which they were ranked. With a geometry, all cosines to the query
    are taken in it.

    Raises what `SpaceIndex.search` raises.
    """
    groups = page.k if not page.diversity else max(POOL_FACTOR * page.k, MIN_DIVERSE_POOL)
    pool = groups if page.group_above is None else 2 * groups + 16
    while True:
        hits = nearest(index, vector, pool, page.min_similarity, candidates, geometry)
        leaders = _leaders(hits, page, groups, geometry)
        enough = len(np.unique(leaders)) >= groups or len(hits.model_ids) < pool
        if enough or pool >= MAX_POOL:
            break
        pool = min(4 * pool, MAX_POOL)
    return _ranked_models(hits, leaders, page, geometry), hits


def nearest(
    index: SpaceIndex,
    vector: np.ndarray,
    k: int,
    min_similarity: float,
    candidates: CandidateFilter,
    geometry: Geometry | PerBaseGeometry | None,
) -> SearchHits:
    """The k nearest models with a cosine of at least `min_similarity`. With a geometry, the nearest by raw cosine are
    candidates whose cosines are computed again in it. This is exact if the candidates are all models that may be found.
    """
    if geometry is None:
        return index.search(
            vector, k, exclude=candidates.exclude, allowed=candidates.allowed, min_similarity=min_similarity
        )
    pool = max(MIN_CANDIDATES, POOL_FACTOR * k)
    query = index.query(vector)
    if isinstance(geometry, PerBaseGeometry):
        image = geometry.query_geometry.apply(query[None])[0]
        bases = geometry.bases if image.any() else ()  # an image of zeros: the query is the average of its base
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
    images = geometry.apply(hits.vectors())
    cosines = np.clip(inner_products(images, image) / (norms(images) * norms(image)), -1, 1)
    return replace(hits, cosines=cosines, exact=hits.exact and len(hits.model_ids) < pool)


def _comparison_vectors(hits: SearchHits, geometry: Geometry | PerBaseGeometry | None) -> np.ndarray:
    """Unit vectors float32 (k, d) by which hits are compared with one another: raw vectors, or in a cross-base query
    each vector in the geometry of its base.
    """
    vectors = hits.vectors()
    for base, allowed in geometry.bases if isinstance(geometry, PerBaseGeometry) else ():
        in_base = slice(None) if allowed is None else allowed.take(hits.model_ids, mode="clip")
        vectors[in_base] = normalize(base.apply(vectors[in_base]))
    return vectors


def _leaders(
    hits: SearchHits, page: PageOptions, groups: int, geometry: Geometry | PerBaseGeometry | None
) -> np.ndarray:
    """The index in the hits of the representative of each hit; itself if near-duplicates are not grouped."""
    if page.group_above is None:
        return np.arange(len(hits.model_ids))
    return representatives(_comparison_vectors(hits, geometry), page.group_above, groups)


def _ranked_models(
    hits: SearchHits, leaders: np.ndarray, page: PageOptions, geometry: Geometry | PerBaseGeometry | None
) -> list[RankedModel]:
    order = np.unique(leaders)  # hits are sorted by cosine, and so are these
    if page.diversity and len(order):
        vectors = _comparison_vectors(hits, geometry)[order]
        order = order[mmr_order(hits.cosines[order], vectors, page.k, page.diversity)]
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
