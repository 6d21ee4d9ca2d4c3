"""The main segment of a large space: IVF lists of short codes find candidates, the vectors in Postgres score them.

The lists are mapped, not read: every process of a host shares one copy of what is touched of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np

from catalog.errors import IndexDamaged
from catalog.index.ivf import Lists
from catalog.index.manifest import IDS, LISTS, Manifest, check_content
from catalog.index.row_bitmap import Rows
from catalog.index.segment import NOTHING, Found, SortedIds
from catalog.vectors.numeric import normalized, norms, products

FEW = 0.9  # a filter that keeps more than this share is a search of the whole that passes some rows over

VectorSource = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From models (n,) int64 to those of them that have a vector (m,) and their vectors float32 (m, d), in any order."""


class MappedSegment:
    """A published generation, and where the vectors come from that score what it finds. Opening it reads and checks all
    of it.

    Raises `IndexDamaged` where a file is missing, has another size, or another checksum.
    """

    def __init__(self, folder: Path, manifest: Manifest, source: VectorSource) -> None:
        check_content(folder, manifest)
        self.manifest = manifest
        self.folder = folder
        self._source = source
        try:
            self.model_ids = np.asarray(np.memmap(folder / IDS, np.int64, "r", shape=(manifest.vectors,)))
            self._lists = Lists.open(folder / LISTS)
        except (OSError, ValueError, RuntimeError) as error:
            raise IndexDamaged(f"{folder.name} cannot be opened: {error}") from error
        if self._lists.shape != (manifest.vectors, manifest.dimension):
            raise IndexDamaged(f"The files of {folder.name} do not belong together.")
        self._list_of = self._lists.list_of()
        self._sorted = SortedIds(self.model_ids, sorted_already=True)

    def __len__(self) -> int:
        return self.manifest.vectors

    @property
    def memory(self) -> int:
        return self.manifest.files[LISTS].size

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
        """As `Segment.search`; a row whose model has no vector any more is not found. Raises `DatabaseUnavailable`."""
        kept = len(self) if rows is None else rows.count
        k = min(k, kept)
        if k == 0:
            return NOTHING
        if rows is not None and kept <= self._lists.candidates(k):
            return self._scored(query, rows.places(len(self)), k, exact=True)
        faiss.omp_set_num_threads(1)  # of this thread: one query gains nothing from more, see docs/benchmarks.md
        reduced = self._lists.reduce(query[None])
        found, wanted = self._scored(query, self._nearest(reduced, k, rows), k), k
        while len(found.rows) < k and wanted < kept:  # models went since: look further
            wanted = min(4 * wanted, kept)
            found = self._scored(query, self._nearest_of(reduced, wanted, rows or Rows.all(len(self))), k)
        return found

    def _nearest(self, reduced: np.ndarray, k: int, rows: Rows | None) -> np.ndarray:
        """Rows (m,) int64 among which the k best of `rows` are."""
        kept = len(self) if rows is None else rows.count
        if rows is not None and kept < FEW * len(self):
            return self._nearest_of(reduced, k, rows)
        probes = min(self.manifest.lists, math.ceil(self._probes(k) * len(self) / kept))
        near = self._lists.probe(reduced, self._lists.candidates(k), probes, rows)[0]
        return near[near >= 0]

    def _nearest_of(self, reduced: np.ndarray, k: int, rows: Rows) -> np.ndarray:
        """Look into the nearest lists that hold any of `rows`, until twice as many have been compared as a search
        without a filter compares: what a filter keeps may lie far from the query, and in few lists.
        """
        in_lists = np.bincount(self._list_of[rows.mask(len(self))], minlength=self.manifest.lists)
        cosines, nearest = self._lists.rank(reduced)
        hold_some = in_lists[nearest] > 0
        nearest, cosines = nearest[hold_some], cosines[hold_some]
        enough = max(2 * self._probes(k) * len(self) / self.manifest.lists, self._lists.candidates(k))
        count = int(np.searchsorted(np.cumsum(in_lists[nearest]), enough)) + 1
        return self._lists.look_into(reduced, self._lists.candidates(k), nearest[:count], cosines[:count], rows)

    def _scored(self, query: np.ndarray, rows: np.ndarray, k: int, *, exact: bool = False) -> Found:
        """The k of those rows (m,) whose vectors have the greatest cosine to a normalised query (d,)."""
        if not len(rows):
            return NOTHING
        model_ids, vectors = self._source(self.model_ids[rows])
        rows, cosines = self.rows_of(model_ids), products(vectors, query) / norms(vectors)
        order = np.lexsort((rows, -cosines))[:k]
        return Found(rows[order], cosines[order], exact)

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """As `Segment.vectors`; zeros where a model has none any more. Raises `DatabaseUnavailable`."""
        model_ids, vectors = self._source(self.model_ids[rows])
        found = np.zeros((len(rows), self.manifest.dimension), np.float32)
        order = np.argsort(rows)
        found[order[np.searchsorted(rows[order], self.rows_of(model_ids))]] = normalized(vectors)
        return found

    def _probes(self, k: int) -> int:
        return next((tuned.probes for tuned in self.manifest.tuned if k <= tuned.k), self.manifest.lists)
