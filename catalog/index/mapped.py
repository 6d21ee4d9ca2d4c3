"""The main segment of a large space: IVF lists of 8-bit codes to find candidates, float32 vectors to score them.

Both files are mapped, not read: every process of a host shares one copy of what is touched of them.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import faiss
import numpy as np

from catalog.errors import IndexDamaged
from catalog.index.files import IDS, LISTS, VECTORS, Manifest, check_content
from catalog.index.rows import Rows
from catalog.index.segment import NOTHING, Found, SortedIds

COMPARE_BYTES = 17 * 2**20  # of float32 vectors: where a filter leaves fewer, all of them are compared
FEW = 0.9  # a filter that keeps more than this share is a search of the whole that passes some rows over


class MappedSegment:
    """A published generation. Opening it checks all that a search could stumble over; `check` reads the rest.

    Raises `IndexDamaged` where a file is missing, has another size, or another checksum.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        check_content(folder, manifest, LISTS, IDS)
        self.manifest = manifest
        self.folder = folder
        n, d = manifest.vectors, manifest.dimension
        try:
            self.model_ids = np.asarray(np.memmap(folder / IDS, np.int64, "r", shape=(n,)))
            self._vectors = np.asarray(np.memmap(folder / VECTORS, np.float32, "r", shape=(n, d)))
            self._lists = cast(Any, faiss.read_index(str(folder / LISTS), faiss.IO_FLAG_MMAP_IFC))
        except (OSError, ValueError, RuntimeError) as error:
            raise IndexDamaged(f"{folder.name} cannot be opened: {error}") from error
        if (self._lists.ntotal, self._lists.d) != (n, d):
            raise IndexDamaged(f"The files of {folder.name} do not belong together.")
        self._list_of = _list_of(self._lists, n)
        self._sorted = SortedIds(self.model_ids, sorted_already=True)

    def __len__(self) -> int:
        return self.manifest.vectors

    @property
    def memory(self) -> int:
        return self.manifest.files[LISTS].size

    def check(self) -> None:
        """Read what opening did not; raises `IndexDamaged`."""
        check_content(self.folder, self.manifest, VECTORS)

    def check_sizes(self) -> None:
        """A look that costs nothing: to read past the new end of a cut file would end the process. A removed file is
        read on. Raises `IndexDamaged`.
        """
        for name, record in self.manifest.files.items():
            path = self.folder / name
            if path.exists() and path.stat().st_size != record.size:
                raise IndexDamaged(f"{self.folder.name}/{name} was cut or overwritten.")

    def rows_of(self, model_ids: np.ndarray) -> np.ndarray:
        return self._sorted.places_of(model_ids)

    def search(self, query: np.ndarray, k: int, rows: Rows | None) -> Found:
        kept = len(self) if rows is None else rows.count
        k = min(k, kept)
        if k == 0:
            return NOTHING
        faiss.omp_set_num_threads(1)  # of this thread: one query gains nothing from more, see docs/benchmarks.md
        if rows is not None and 4 * kept * self.manifest.dimension <= COMPARE_BYTES:
            return best(self._vectors, query, np.flatnonzero(rows.mask(len(self))), k, exact=True)
        if rows is not None and kept < FEW * len(self):
            return self._search_some(query, k, rows)
        probes = min(self.manifest.lists, math.ceil(self._probes(k) * len(self) / kept))
        near = probe(self._lists, query[None], candidates(k), probes, rows)[0]
        found = best(self._vectors, query, near[near >= 0], k)
        return found if len(found.rows) == k else self._search_some(query, k, rows or Rows.all(len(self)))

    def _search_some(self, query: np.ndarray, k: int, rows: Rows) -> Found:
        """Look into the nearest lists that hold any of `rows`, until twice as many have been compared as a search
        without a filter compares: what a filter keeps may lie far from the query, and in few lists.
        """
        in_lists = np.bincount(self._list_of[rows.mask(len(self))], minlength=self.manifest.lists)
        cosines, nearest = self._lists.quantizer.search(query[None], self.manifest.lists)
        hold_some = in_lists[nearest[0]] > 0
        nearest, cosines = nearest[:, hold_some], cosines[:, hold_some]
        enough = max(2 * self._probes(k) * len(self) / self.manifest.lists, candidates(k))
        count = int(np.searchsorted(np.cumsum(in_lists[nearest[0]]), enough)) + 1
        found = _look_into(self._lists, query, candidates(k), nearest[0, :count], cosines[0, :count], rows)
        return best(self._vectors, query, found, k)

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        return self._vectors[rows]

    def _probes(self, k: int) -> int:
        return next((tuned.probes for tuned in self.manifest.tuned if k <= tuned.k), self.manifest.lists)


def _look_into(
    lists: Any, query: np.ndarray, k: int, chosen: np.ndarray, cosines: np.ndarray, rows: Rows
) -> np.ndarray:
    """Of the lists `chosen`, whose centroids have those cosines to the query, the k best of `rows`, int64."""
    chosen, cosines = np.ascontiguousarray(chosen), np.ascontiguousarray(cosines)
    scores, found = np.empty(k, np.float32), np.empty(k, np.int64)
    params = faiss.SearchParametersIVF(sel=rows.selector(), nprobe=len(chosen))  # type: ignore[call-arg]
    asked = [faiss.swig_ptr(each) for each in (chosen, cosines, scores, found)]
    lists.search_preassigned_c(1, faiss.swig_ptr(query), k, *asked, False, params)
    return found[found >= 0]


def _list_of(lists: Any, n: int) -> np.ndarray:
    """The list (n,) int32 that each row is in."""
    found = np.empty(n, np.int32)
    for number in range(lists.nlist):
        size = lists.invlists.list_size(number)
        if size:
            found[faiss.rev_swig_ptr(lists.invlists.get_ids(number), size)] = number
    return found


def probe(lists: Any, queries: np.ndarray, k: int, probes: int, rows: Rows | None = None) -> np.ndarray:
    """Rows int64 (q, k) that the codes in so many lists rank highest for normalised queries (q, d); -1 where none."""
    selector = rows.selector() if rows is not None else None
    params = faiss.SearchParametersIVF(sel=selector, nprobe=probes)  # type: ignore[call-arg]
    return lists.search(queries, k, params=params)[1]


def candidates(k: int) -> int:
    """8-bit codes may rank a near neighbour a little too low."""
    return k + k // 2 + 32


def best(vectors: np.ndarray, query: np.ndarray, rows: np.ndarray, k: int, *, exact: bool = False) -> Found:
    """The k of those rows (m,) whose vectors have the greatest cosine to a normalised query (d,)."""
    rows = np.ascontiguousarray(rows, dtype=np.int64)
    cosines = np.empty(len(rows), np.float32)
    places = [faiss.swig_ptr(each) for each in (cosines, query, vectors, rows)]
    faiss.fvec_inner_products_by_idx(*places, len(query), 1, len(rows))  # type: ignore[attr-defined]
    order = np.argsort(-cosines, kind="stable")[:k]
    return Found(rows[order], cosines[order], exact)
