"""A page of neighbours: the nearest ones, or a varied choice of them, each with the near-duplicates it stands for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from catalog.index.ranking import diverse, representatives
from catalog.index.space_index import Hits, SpaceIndex

POOL = 4  # times k: the neighbours that a varied choice is made among, and
LARGEST_POOL = 4_096  # at most so many are looked through for near-duplicates


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


def pick(
    index: SpaceIndex, vector: np.ndarray, page: Page, *, exclude: Collection[int], allowed: np.ndarray | None
) -> tuple[list[Pick], Hits]:
    """The page, and the hits that it was made of. Raises what `SpaceIndex.search` raises."""
    wanted = page.k if not page.diversity else max(POOL * page.k, 64)
    pool = wanted if page.group_above is None else 2 * wanted + 16
    while True:
        hits = index.search(vector, pool, exclude=exclude, allowed=allowed, min_similarity=page.min_similarity)
        leaders = _leaders(hits, page, wanted)
        enough = len(np.unique(leaders)) >= wanted or len(hits.model_ids) < pool
        if enough or pool >= LARGEST_POOL:
            break
        pool = min(4 * pool, LARGEST_POOL)
    return _picks(hits, leaders, page), hits


def _leaders(hits: Hits, page: Page, wanted: int) -> np.ndarray:
    if page.group_above is None:
        return np.arange(len(hits.model_ids))
    return representatives(hits.vectors(), page.group_above, wanted)


def _picks(hits: Hits, leaders: np.ndarray, page: Page) -> list[Pick]:
    chosen = np.unique(leaders)  # in the order of their cosines
    if page.diversity and len(chosen):
        vectors = hits.vectors()[chosen]
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
