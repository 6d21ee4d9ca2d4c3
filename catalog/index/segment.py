"""Segments: immutable sets of normalized vectors that are searched as a whole. `FlatSegment` is exact and in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import faiss
import numpy as np

from catalog.index.row_bitmap import RowBitmap
from catalog.vectors.numeric import normalize


@dataclass(frozen=True)
class SegmentHits:
    """Rows of a segment (k,) int64 and their cosines (k,) float32, best first. `exact`: no nearer row is missing.
    `vectors`: their normalized vectors float32 (k, d), if the search had to read them from Postgres.
    """

    rows: np.ndarray
    cosines: np.ndarray
    exact: bool = True
    vectors: np.ndarray | None = None


NO_HITS = SegmentHits(np.empty(0, np.int64), np.empty(0, np.float32))


class Segment(Protocol):
    """A segment of n rows that never change. `model_ids` (n,) int64 holds each model at most once."""

    model_ids: np.ndarray

    def __len__(self) -> int: ...

    @property
    def dimension(self) -> int:
        """d"""

    @property
    def memory(self) -> int:
        """Bytes of memory that searches use."""

    def rows_of(self, model_ids: np.ndarray) -> np.ndarray:
        """The rows of these models (m,), int64; models that are not in the segment are skipped."""

    def search(self, query: np.ndarray, k: int, rows: RowBitmap | None) -> SegmentHits:
        """The k best of `rows` (None: all) for a normalized query (d,), or fewer if there are not as many."""

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """A copy of the normalized vectors float32 (m, d) of these rows (m,)."""


class FlatSegment:
    """Vectors float32 (n, d), normalized on construction and searched exactly, with the `seq` (n,) of their changes."""

    def __init__(self, model_ids: np.ndarray, vectors: np.ndarray, seqs: np.ndarray) -> None:
        self.model_ids = model_ids
        self.seqs = seqs
        self._index = faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(normalize(vectors))
        self._sorted = SortedIds(model_ids)

    def __len__(self) -> int:
        return len(self.model_ids)

    @property
    def dimension(self) -> int:
        return self._index.d

    @property
    def memory(self) -> int:
        return 4 * self._index.ntotal * self._index.d

    def rows_of(self, model_ids: np.ndarray) -> np.ndarray:
        return self._sorted.rows_of(model_ids)

    def search(self, query: np.ndarray, k: int, rows: RowBitmap | None) -> SegmentHits:
        k = min(k, len(self) if rows is None else rows.count)
        if k == 0:
            return NO_HITS
        selector = rows.selector() if rows is not None else None
        faiss.omp_set_num_threads(1)  # of this thread: one query gains nothing from more, see docs/benchmarks.md
        cosines, nearest = self._index.search(query[None], k, params=faiss.SearchParameters(sel=selector))  # type: ignore[call-arg]
        return SegmentHits(nearest[0], cosines[0])

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        stored = faiss.rev_swig_ptr(self._index.get_xb(), self._index.ntotal * self._index.d)
        return stored.reshape(-1, self._index.d)[rows]  # the indexing copies: FAISS owns the memory of `stored`

    def entries(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The model ids, vectors and change numbers of these rows, from which another segment can be made."""
        return self.model_ids[rows], self.vectors(rows), self.seqs[rows]


class SortedIds:
    """Looks up the rows of models in `model_ids` (n,), which need not be sorted."""

    def __init__(self, model_ids: np.ndarray, *, sorted_already: bool = False) -> None:
        self._order = None if sorted_already else np.argsort(model_ids, kind="stable")
        self._ids = model_ids if self._order is None else model_ids[self._order]

    def rows_of(self, model_ids: np.ndarray) -> np.ndarray:
        """The rows (int64) of these models; models that are not there are skipped."""
        if not len(self._ids) or not len(model_ids):
            return np.empty(0, np.int64)
        indices = np.minimum(np.searchsorted(self._ids, model_ids), len(self._ids) - 1)
        indices = indices[self._ids[indices] == model_ids]
        return indices if self._order is None else self._order[indices]
