"""Inverted lists of short codes, as FAISS keeps them: coordinates along a few axes as halves of float32, or all
coordinates in 8 bits each where no few axes would do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import faiss
import numpy as np

from catalog.index.row_bitmap import Rows
from catalog.vectors.numeric import products


class Lists:
    """n vectors of dimension d in lists; codes along r axes. Cosines in here are estimates, made of codes alone."""

    def __init__(self, index: faiss.IndexPreTransform) -> None:
        self._index = index  # owns the other one
        self._ivf = cast(Any, faiss.extract_index_ivf(index))
        self._axes = _axes(index)

    @classmethod
    def untrained(cls, d: int, axes: np.ndarray | None, count: int, iterations: int) -> Lists:
        """`count` lists; `axes` (r, d) are orthonormal, None for all coordinates."""
        r = d if axes is None else len(axes)
        code = faiss.ScalarQuantizer.QT_8bit if axes is None else faiss.ScalarQuantizer.QT_fp16
        of_residuals = axes is None  # halves are exact enough without
        ivf = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(r), r, count, code, faiss.METRIC_INNER_PRODUCT, of_residuals
        )
        ivf.cp.niter, ivf.cp.seed, ivf.cp.min_points_per_centroid = iterations, 1, 1
        index = faiss.IndexPreTransform(ivf)
        if axes is not None:
            transform = faiss.LinearTransform(d, r)
            faiss.copy_array_to_vector(np.ascontiguousarray(axes, np.float32).ravel(), transform.A)
            transform.is_trained = True
            index.prepend_transform(transform)
        return cls(index)

    @classmethod
    def open(cls, path: Path) -> Lists:
        """Mapped from a file. Raises `RuntimeError` where it is not one of these."""
        return cls(cast(Any, faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)))

    def write(self, path: Path) -> None:
        faiss.write_index(self._index, str(path))

    @property
    def shape(self) -> tuple[int, int]:
        """n, d"""
        return self._index.ntotal, self._index.d

    @property
    def count(self) -> int:
        return self._ivf.nlist

    @property
    def axes(self) -> int:
        """r"""
        return self._ivf.d

    @property
    def kind(self) -> str:
        return "ivf_sq8" if self._axes is None else f"ivf_fp16_of_{self.axes}"

    def train(self, reduced: np.ndarray) -> None:
        """Place the lists by k-means over a reduced sample (m, r)."""
        self._ivf.train(reduced)
        self._index.is_trained = True

    def candidates(self, k: int) -> int:
        """How many of the codes' nearest are to be scored to find k: they rank some a little too low."""
        return k + k // 8 + 5 if self._axes is not None else k + k // 2 + 32

    def add(self, vectors: np.ndarray) -> None:
        """Append normalised vectors float32 (m, d)."""
        self._ivf.add(self.reduce(vectors))
        self._index.ntotal = self._ivf.ntotal

    def reduce(self, vectors: np.ndarray) -> np.ndarray:
        """(m, d) -> (m, r)"""
        if self._axes is None:
            return np.ascontiguousarray(vectors)
        return products(self._axes, vectors[0])[None] if len(vectors) == 1 else vectors @ self._axes.T

    def probe(self, reduced: np.ndarray, k: int, probes: int, rows: Rows | None = None) -> np.ndarray:
        """Rows int64 (q, k) that the codes in so many lists rank highest for reduced queries (q, r); -1 where none."""
        selector = rows.selector() if rows is not None else None
        params = faiss.SearchParametersIVF(sel=selector, nprobe=probes)  # type: ignore[call-arg]
        return self._ivf.search(reduced, k, params=params)[1]

    def rank(self, reduced: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cosines and numbers of all lists, the nearest to a reduced query (1, r) first."""
        cosines, numbers = self._ivf.quantizer.search(reduced, self.count)
        return cosines[0], numbers[0]

    def look_into(
        self, reduced: np.ndarray, k: int, numbers: np.ndarray, cosines: np.ndarray, rows: Rows
    ) -> np.ndarray:
        """Of the lists of those numbers, as `rank` gave them, the k best of `rows` for a reduced query (1, r)."""
        numbers, cosines = np.ascontiguousarray(numbers), np.ascontiguousarray(cosines)
        scores, found = np.empty(k, np.float32), np.empty(k, np.int64)
        params = faiss.SearchParametersIVF(sel=rows.selector(), nprobe=len(numbers))  # type: ignore[call-arg]
        asked = [faiss.swig_ptr(each) for each in (numbers, cosines, scores, found)]
        self._ivf.search_preassigned_c(1, faiss.swig_ptr(reduced), k, *asked, False, params)
        return found[found >= 0]

    def list_of(self) -> np.ndarray:
        """The list (n,) int32 that each row is in."""
        found = np.empty(self._ivf.ntotal, np.int32)
        for number in range(self.count):
            size = self._ivf.invlists.list_size(number)
            if size:
                found[faiss.rev_swig_ptr(self._ivf.invlists.get_ids(number), size)] = number
        return found


def _axes(index: faiss.IndexPreTransform) -> np.ndarray | None:
    chain = cast(Any, index.chain)
    if chain.size() == 0:
        return None
    transform = cast(Any, faiss.downcast_VectorTransform(chain.at(0)))
    return faiss.vector_to_array(transform.A).reshape(transform.d_out, transform.d_in)
