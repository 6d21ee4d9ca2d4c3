"""The main segment of a large space: IVF lists of short codes select candidates, and vectors in Postgres score them.

The lists are memory-mapped, so all processes of a host share one copy of the pages in use.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np

from catalog.errors import IndexDamaged
from catalog.index.ivf import InvertedLists
from catalog.index.manifest import IDS_FILE, LISTS_FILE, Manifest, check_content
from catalog.index.row_bitmap import RowBitmap
from catalog.index.segment import NO_HITS, SegmentHits, SortedIds
from catalog.vectors.numeric import inner_products, normalize, norms

BLOCK_BYTES = 16 * 2**20  # of vectors that are read and scored at once
MAX_SELECTIVE_SHARE = 0.9  # a filter that passes more than this share of the rows is searched like no filter

VectorSource = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Maps model ids (n,) int64 to the ids (m,) of models with a vector, and the vectors float32 (m, d), in any order."""


class MappedSegment:
    """A published generation, with the source of the vectors that score its candidates. Opening it verifies all files.

    Raises `IndexDamaged` if a file is missing or differs in size or checksum.
    """

    def __init__(self, folder: Path, manifest: Manifest, source: VectorSource) -> None:
        check_content(folder, manifest)
        self.manifest = manifest
        self.folder = folder
        self._source = source
        try:
            self.model_ids = np.asarray(np.memmap(folder / IDS_FILE, np.int64, "r", shape=(manifest.vectors,)))
            self._lists = InvertedLists.open(folder / LISTS_FILE)
        except (OSError, ValueError, RuntimeError) as error:
            raise IndexDamaged(f"{folder.name} cannot be opened: {error}") from error
        if self._lists.shape != (manifest.vectors, manifest.dimension):
            raise IndexDamaged(f"The files of {folder.name} belong to different segments.")
        self._list_numbers = self._lists.list_numbers()
        self._sorted = SortedIds(self.model_ids, sorted_already=True)

    def __len__(self) -> int:
        return self.manifest.vectors

    @property
    def dimension(self) -> int:
        return self.manifest.dimension

    @property
    def memory(self) -> int:
        return self.manifest.files[LISTS_FILE].size

    def check_sizes(self) -> None:
        """Check the file sizes, which is cheap: reading past the end of a truncated file would kill the process. A
        removed file stays readable. Raises `IndexDamaged`.
        """
        for name, record in self.manifest.files.items():
            path = self.folder / name
            if path.exists() and path.stat().st_size != record.size:
                raise IndexDamaged(f"{self.folder.name}/{name} was truncated or overwritten.")

    def rows_of(self, model_ids: np.ndarray) -> np.ndarray:
        return self._sorted.rows_of(model_ids)

    def search(self, query: np.ndarray, k: int, rows: RowBitmap | None) -> SegmentHits:
        """As `Segment.search`. Rows whose models no longer have a vector are skipped. Raises `DatabaseUnavailable`."""
        searchable = len(self) if rows is None else rows.count
        k = min(k, searchable)
        if k == 0:
            return NO_HITS
        if rows is not None and searchable <= self._lists.candidate_count(k):
            return self._score(query, rows.indices(len(self)), k, exact=True)
        faiss.omp_set_num_threads(1)  # of this thread: one query gains nothing from more, see docs/benchmarks.md
        reduced = self._lists.reduce(query[None])
        hits, target = self._score(query, self._candidates(reduced, k, rows), k), k
        while len(hits.rows) < k and target < searchable:  # models were removed since the build: look further
            target = min(4 * target, searchable)
            hits = self._score(query, self._filtered_candidates(reduced, target, rows or RowBitmap.all(len(self))), k)
        return hits

    def _candidates(self, reduced: np.ndarray, k: int, rows: RowBitmap | None) -> np.ndarray:
        """Rows (m,) int64 that should contain the k best of `rows`."""
        searchable = len(self) if rows is None else rows.count
        if rows is not None and searchable < MAX_SELECTIVE_SHARE * len(self):
            return self._filtered_candidates(reduced, k, rows)
        probes = min(self.manifest.lists, math.ceil(self._probes(k) * len(self) / searchable))
        candidates = self._lists.probe(reduced, self._lists.candidate_count(k), probes, rows)[0]
        return candidates[candidates >= 0]

    def _filtered_candidates(self, reduced: np.ndarray, k: int, rows: RowBitmap) -> np.ndarray:
        """Search the nearest lists that contain any of `rows`, until twice as many rows are compared as without a
        filter: the rows that pass a filter may be far from the query and in few lists.
        """
        list_sizes = np.bincount(self._list_numbers[rows.mask(len(self))], minlength=self.manifest.lists)
        cosines, nearest = self._lists.rank_lists(reduced)
        non_empty = list_sizes[nearest] > 0
        nearest, cosines = nearest[non_empty], cosines[non_empty]
        enough = max(2 * self._probes(k) * len(self) / self.manifest.lists, self._lists.candidate_count(k))
        count = int(np.searchsorted(np.cumsum(list_sizes[nearest]), enough)) + 1
        return self._lists.search_lists(reduced, self._lists.candidate_count(k), nearest[:count], cosines[:count], rows)

    def _score(self, query: np.ndarray, rows: np.ndarray, k: int, *, exact: bool = False) -> SegmentHits:
        """The k of these rows (m,) whose vectors have the greatest cosines to a normalized query (d,).

        The vectors are read in blocks, and only those of the best so far are kept.
        """
        if not len(rows):
            return NO_HITS
        best_rows, best_cosines = np.empty(0, np.int64), np.empty(0, np.float32)
        best_vectors = np.empty((0, self.manifest.dimension), np.float32)
        block = max(1, BLOCK_BYTES // (4 * self.manifest.dimension))
        for start in range(0, len(rows), block):
            model_ids, vectors = self._source(self.model_ids[rows[start : start + block]])
            scored_rows = np.concatenate([best_rows, self.rows_of(model_ids)])
            cosines = np.concatenate([best_cosines, inner_products(vectors, query) / norms(vectors)])
            order = np.lexsort((scored_rows, -cosines))[:k]
            best_rows, best_cosines = scored_rows[order], cosines[order]
            best_vectors = _select(best_vectors, normalize(vectors), order)
        return SegmentHits(best_rows, best_cosines, exact, best_vectors)

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """As `Segment.vectors`; zeros for models that no longer have a vector. Raises `DatabaseUnavailable`."""
        model_ids, stored = self._source(self.model_ids[rows])
        result = np.zeros((len(rows), self.manifest.dimension), np.float32)
        order = np.argsort(rows)
        result[order[np.searchsorted(rows[order], self.rows_of(model_ids))]] = normalize(stored)
        return result

    def _probes(self, k: int) -> int:
        return next((tuned.probes for tuned in self.manifest.tuned if k <= tuned.k), self.manifest.lists)


def _select(before: np.ndarray, added: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The rows at the indices `order` (k,) of two arrays (n, d) and (m, d), one after the other, without a copy of both
    together.
    """
    selected = np.empty((len(order), before.shape[1]), before.dtype)
    from_before = order < len(before)
    selected[from_before] = before[order[from_before]]
    selected[~from_before] = added[order[~from_before] - len(before)]
    return selected
