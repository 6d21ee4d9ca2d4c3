"""A page of neighbours: the nearest ones, or a varied choice of them, each with the near-duplicates it stands for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from catalog.geometry.transforms import Geometry
from catalog.index.space_index import Hits, SpaceIndex, joined
from catalog.search.diversity import diverse, representatives
from catalog.vectors.numeric import normalized, norms, products

NOTHING = (np.empty(0, np.int64), np.empty(0, np.float32))
POOL = 4  # times k: the neighbours that a varied choice is made among, and
LARGEST_POOL = 4_096  # at most so many are looked through for near-duplicates
CANDIDATES = 256  # or `POOL` times k if that is more: what is measured anew in a geometry


@dataclass(frozen=True)
class Page:
    """What a page of k neighbours is to be: all above a cosine; `diversity` from 0 (by cosine) to 1; models with a
    cosine of `group_above` to each other on one line (None: each on its own).
    """

    k: int = 10
    min_similarity: float = -1
    diversity: float = 0
    group_above: float | None = None


@dataclass(frozen=True)
class Pick:
    """A model, its cosine to the query, and the models and cosines of the near-duplicates that it stands for."""

    model_id: int
    cosine: float
    duplicates: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Limits:
    """Which models may be found: all but those of `exclude`, and only where `allowed` (bool, by model id) is true."""

    exclude: Collection[int] = ()
    allowed: np.ndarray | None = None


@dataclass(frozen=True)
class Across:
    """The geometry of the query's own base, and of each base whose models may be found its geometry and which models
    (bool, by model id; None: all) those are. Each only shifts and scales unit vectors.
    """

    own: Geometry
    parts: Sequence[tuple[Geometry, np.ndarray | None]]


def pick(
    index: SpaceIndex, vector: np.ndarray, page: Page, limits: Limits, geometry: Geometry | Across | None = None
) -> tuple[list[Pick], Hits]:
    """The page, and the hits that it was made of; with a geometry, all cosines to the query are of that.

    Raises what `SpaceIndex.search` raises.
    """
    wanted = page.k if not page.diversity else max(POOL * page.k, 64)
    pool = wanted if page.group_above is None else 2 * wanted + 16
    while True:
        hits = search(index, vector, pool, page.min_similarity, limits, geometry)
        leaders = _leaders(hits, page, wanted, geometry)
        enough = len(np.unique(leaders)) >= wanted or len(hits.model_ids) < pool
        if enough or pool >= LARGEST_POOL:
            break
        pool = min(4 * pool, LARGEST_POOL)
    return _picks(hits, leaders, page, geometry), hits


def search(
    index: SpaceIndex,
    vector: np.ndarray,
    k: int,
    least: float,
    limits: Limits,
    geometry: Geometry | Across | None,
) -> Hits:
    """The k nearest with a cosine of at least `least`. In a geometry, the nearest by raw cosine are candidates that are
    measured anew: exact where all that may be found are candidates.
    """
    if geometry is None:
        return index.search(vector, k, exclude=limits.exclude, allowed=limits.allowed, min_similarity=least)
    pool = max(CANDIDATES, POOL * k)
    query = index.query(vector)
    if isinstance(geometry, Across):
        own = geometry.own.apply(query[None])[0]
        found = [
            _measured(index, each.toward(own), own, each, pool, replace(limits, allowed=allowed))
            for each, allowed in (geometry.parts if own.any() else ())  # zeros: as its base's models are on average
        ]
    else:
        found = [_measured(index, query, geometry.apply(query[None])[0], geometry, pool, limits)]
    hits = joined(found) if found else Hits(*NOTHING, index.covered_seq, index.generation)
    order = np.argsort(-hits.cosines, kind="stable")[:k]
    order = order[hits.cosines[order] >= least]
    return hits.chosen(order, hits.cosines[order])


def _measured(
    index: SpaceIndex, toward: np.ndarray, own: np.ndarray, geometry: Geometry, pool: int, limits: Limits
) -> Hits:
    """The candidates nearest to a direction by raw cosine, with their cosines in a geometry to a query placed there."""
    hits = index.search(toward, pool, exclude=limits.exclude, allowed=limits.allowed)
    if not len(hits.model_ids):
        return hits
    theirs = geometry.apply(hits.vectors())
    cosines = np.clip(products(theirs, own) / (norms(theirs) * norms(own)), -1, 1)
    return replace(hits, cosines=cosines, exact=hits.exact and len(hits.model_ids) < pool)


def _compared(hits: Hits, geometry: Geometry | Across | None) -> np.ndarray:
    """Unit vectors float32 (k, d) whose products say how alike hits are: the vectors as they are, but across bases each
    as it stands among those of its base.
    """
    vectors = hits.vectors()
    for each, allowed in geometry.parts if isinstance(geometry, Across) else ():
        of_it = slice(None) if allowed is None else allowed.take(hits.model_ids, mode="clip")
        vectors[of_it] = normalized(each.apply(vectors[of_it]))
    return vectors


def _leaders(hits: Hits, page: Page, wanted: int, geometry: Geometry | Across | None) -> np.ndarray:
    if page.group_above is None:
        return np.arange(len(hits.model_ids))
    return representatives(_compared(hits, geometry), page.group_above, wanted)


def _picks(hits: Hits, leaders: np.ndarray, page: Page, geometry: Geometry | Across | None) -> list[Pick]:
    chosen = np.unique(leaders)  # in the order of their cosines
    if page.diversity and len(chosen):
        vectors = _compared(hits, geometry)[chosen]
        chosen = chosen[diverse(hits.cosines[chosen], vectors, page.k, page.diversity)]
    followers: dict[int, list[int]] = {}
    for place, leader in enumerate(leaders.tolist()):
        if place != leader:
            followers.setdefault(leader, []).append(place)
    return [
        Pick(*_hit(hits, place), tuple(_hit(hits, each) for each in followers.get(place, ())))
        for place in chosen[: page.k].tolist()
    ]


def _hit(hits: Hits, place: int) -> tuple[int, float]:
    return int(hits.model_ids[place]), float(hits.cosines[place])
