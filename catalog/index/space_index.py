"""The index of one space: a main segment, a small fresh one, and the rows of the main one that are out of date.

A refresh makes new segments and replaces one reference; it never changes what a search is reading.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from catalog.errors import InvalidVector, SpaceMismatch
from catalog.index.segment import Segment, normalised
from catalog.repository.vectors import Change

FRESH_ROWS = 1_000  # main is made anew when fresh and stale rows together pass this,
FRESH_SHARE = 0.1  # or this share of it, whichever is more


@dataclass(frozen=True)
class Hits:
    """Models (k,) int64 and cosines (k,) float32, best first, and the last change that they take into account."""

    model_ids: np.ndarray
    cosines: np.ndarray
    covered_seq: int
    exact: bool = True


@dataclass(frozen=True)
class _View:
    main: Segment
    stale: np.ndarray  # rows of main that were replaced or removed
    fresh: Segment
    covered_seq: int


class SpaceIndex:
    """Exact cosine search over the newest vector of each model in a space of dimension d."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._view = _View(_empty(dimension), np.empty(0, np.int64), _empty(dimension), 0)

    def __len__(self) -> int:
        view = self._view
        return len(view.main) - len(view.stale) + len(view.fresh)

    @property
    def covered_seq(self) -> int:
        return self._view.covered_seq

    def apply(self, changes: Sequence[Change]) -> None:
        """Take in the next entries of the feed, in their order. One thread at a time."""
        view = self._view
        newest = {change.model_id: change.vector for change in changes}
        changed = np.fromiter(newest, dtype=np.int64)
        kept = np.setdiff1d(np.arange(len(view.fresh)), view.fresh.rows_of(changed))
        added = {model_id: vector for model_id, vector in newest.items() if vector is not None}
        fresh = _joined(
            view.fresh.take(kept),
            (np.fromiter(added, dtype=np.int64), np.array(list(added.values())).reshape(-1, self.dimension)),
        )
        main, stale = view.main, np.union1d(view.stale, view.main.rows_of(changed))
        if len(fresh) + len(stale) > max(FRESH_ROWS, FRESH_SHARE * len(main)):
            alive = np.setdiff1d(np.arange(len(main)), stale)
            main = _joined(main.take(alive), fresh.take(np.arange(len(fresh))))
            fresh, stale = _empty(self.dimension), np.empty(0, np.int64)
        self._view = _View(main, stale, fresh, changes[-1].seq)

    def search(self, vector: np.ndarray, k: int, *, exclude: Collection[int] = (), min_similarity: float = -1) -> Hits:
        """The k nearest models to a vector (d,) by cosine, without those of `exclude`.

        Raises `SpaceMismatch` for another dimension, `InvalidVector` for NaN, infinity or nothing but zeros.
        """
        if vector.shape != (self.dimension,):
            raise SpaceMismatch(f"The vector has {vector.size} entries; those of this space have {self.dimension}.")
        with np.errstate(over="ignore"):
            vector = vector.astype(np.float32)
        if not np.isfinite(vector).all() or not vector.any():
            raise InvalidVector("A query vector needs finite float32 entries, at least one of them not zero.")
        view, query = self._view, normalised(vector)
        excluded = np.unique(np.fromiter(exclude, dtype=np.int64))
        found = [
            view.main.search(query, k, np.union1d(view.stale, view.main.rows_of(excluded))),
            view.fresh.search(query, k, view.fresh.rows_of(excluded)),
        ]
        model_ids = np.concatenate([ids for ids, _ in found])
        cosines = np.clip(np.concatenate([cosines for _, cosines in found]), -1, 1)  # rounding may pass 1 by a hair
        best = np.argsort(-cosines, kind="stable")[:k]
        best = best[cosines[best] >= min_similarity]
        return Hits(model_ids[best], cosines[best], view.covered_seq)


def _empty(dimension: int) -> Segment:
    return Segment(np.empty(0, np.int64), np.empty((0, dimension), np.float32))


def _joined(*parts: tuple[np.ndarray, np.ndarray]) -> Segment:
    return Segment(np.concatenate([ids for ids, _ in parts]), np.concatenate([vectors for _, vectors in parts]))
