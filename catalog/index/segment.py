"""What a search reads: immutable runs of normalised vectors. This file has the exact kind, which lives in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import faiss
import numpy as np

from catalog.index.row_bitmap import Rows
from catalog.vectors.numeric import normalized


@dataclass(frozen=True)
class Found:
    """Rows of a segment (k,) int64 and their cosines (k,) float32, best first; whether no nearer row can be missing."""

    rows: np.ndarray
    cosines: np.ndarray
    exact: bool = True


NOTHING = Found(np.empty(0, np.int64), np.empty(0, np.float32))


class Segment(Protocol):
    """Rows never change; `model_ids` (n,) int64 has no model twice."""

    model_ids: np.ndarray

    def __len__(self) -> int: ...

    @property
    def memory(self) -> int:
        """Bytes that it takes while it is searched."""

    def rows_of(self, model_ids: np.ndarray) -> np.ndarray:
        """The rows of those models (m,) that are in here, int64 of at most m."""

    def search(self, query: np.ndarray, k: int, rows: Rows | None) -> Found:
        """The k best of `rows` (None: of all) for a normalised query (d,); fewer where there are fewer."""

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """The normalised vectors float32 (m, d) of some rows (m,), copied."""


class FlatSegment:
    """Vectors float32 (n, d), normalised here and searched exactly, and the change (n,) that brought each."""

    def __init__(self, model_ids: np.ndarray, vectors: np.ndarray, seqs: np.ndarray) -> None:
        self.model_ids = model_ids
        self.seqs = seqs
        self._index = faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(normalized(vectors))
        self._sorted = SortedIds(model_ids)

    def __len__(self) -> int:
        return len(self.model_ids)

    @property
    def memory(self) -> int:
        return 4 * self._index.ntotal * self._index.d

    def rows_of(self, model_ids: np.ndarray) -> np.ndarray:
        return self._sorted.places_of(model_ids)

    def search(self, query: np.ndarray, k: int, rows: Rows | None) -> Found:
        k = min(k, len(self) if rows is None else rows.count)
        if k == 0:
            return NOTHING
        selector = rows.selector() if rows is not None else None
        faiss.omp_set_num_threads(1)  # of this thread: one query gains nothing from more, see docs/benchmarks.md
        cosines, found = self._index.search(query[None], k, params=faiss.SearchParameters(sel=selector))  # type: ignore[call-arg]
        return Found(found[0], cosines[0])

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        held = faiss.rev_swig_ptr(self._index.get_xb(), self._index.ntotal * self._index.d)
        return held.reshape(-1, self._index.d)[rows]  # copied: FAISS frees its own with itself

    def kept(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Models, vectors and changes of some rows: what another segment can be made of."""
        return self.model_ids[rows], self.vectors(rows), self.seqs[rows]


class SortedIds:
    """Where a model stands among `model_ids` (n,), which need not be sorted."""

    def __init__(self, model_ids: np.ndarray, *, sorted_already: bool = False) -> None:
        self._order = None if sorted_already else np.argsort(model_ids, kind="stable")
        self._ids = model_ids if self._order is None else model_ids[self._order]

    def places_of(self, wanted: np.ndarray) -> np.ndarray:
        """The places (int64) of those wanted that are there."""
        if not len(self._ids) or not len(wanted):
            return np.empty(0, np.int64)
        places = np.minimum(np.searchsorted(self._ids, wanted), len(self._ids) - 1)
        places = places[self._ids[places] == wanted]
        return places if self._order is None else self._order[places]
