"""A FAISS IVF index of short codes: float16 coordinates along a few principal axes, or all coordinates in 8 bits if a
few axes do not reach the target recall.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import faiss
import numpy as np

from catalog.index.row_bitmap import RowBitmap
from catalog.vectors.numeric import inner_products


class InvertedLists:
    """n vectors of dimension d in inverted lists, as codes along r axes. Cosines are estimated from the codes."""

    def __init__(self, index: faiss.IndexPreTransform) -> None:
        self._index = index  # owns `_ivf`
        self._ivf = cast(Any, faiss.extract_index_ivf(index))
        self._axes = _axes(index)

    @classmethod
    def untrained(cls, d: int, axes: np.ndarray | None, count: int, iterations: int) -> InvertedLists:
        """`count` empty lists, to be trained by `iterations` of k-means. `axes` (r, d) are orthonormal; None: all
        coordinates.
        """
        r = d if axes is None else len(axes)
        code = faiss.ScalarQuantizer.QT_8bit if axes is None else faiss.ScalarQuantizer.QT_fp16
        by_residual = axes is None  # float16 is exact enough without
        ivf = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(r), r, count, code, faiss.METRIC_INNER_PRODUCT, by_residual
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
    def open(cls, path: Path) -> InvertedLists:
        """Map the lists from a file. Raises `RuntimeError` if FAISS cannot read it."""
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
        """Compute the centroids of the lists by k-means over a reduced sample (m, r)."""
        self._ivf.train(reduced)
        self._index.is_trained = True

    def candidate_count(self, k: int) -> int:
        """The number of candidates to score so that the k nearest are among them, since codes rank inexactly."""
        return k + k // 8 + 5 if self._axes is not None else k + k // 2 + 32

    def add(self, vectors: np.ndarray) -> None:
        """Append normalized vectors float32 (m, d)."""
        self._ivf.add(self.reduce(vectors))
        self._index.ntotal = self._ivf.ntotal

    def reduce(self, vectors: np.ndarray) -> np.ndarray:
        """Project vectors (m, d) onto the axes: (m, r)."""
        if self._axes is None:
            return np.ascontiguousarray(vectors)
        return inner_products(self._axes, vectors[0])[None] if len(vectors) == 1 else vectors @ self._axes.T

    def probe(self, reduced: np.ndarray, k: int, probes: int, rows: RowBitmap | None = None) -> np.ndarray:
        """The k best rows int64 (q, k) by code in the `probes` nearest lists, for reduced queries (q, r); -1 pads."""
        selector = rows.selector() if rows is not None else None
        params = faiss.SearchParametersIVF(sel=selector, nprobe=probes)  # type: ignore[call-arg]
        return self._ivf.search(reduced, k, params=params)[1]

    def rank_lists(self, reduced: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The cosines and numbers of all lists, the one nearest to a reduced query (1, r) first."""
        cosines, numbers = self._ivf.quantizer.search(reduced, self.count)
        return cosines[0], numbers[0]

    def search_lists(
        self, reduced: np.ndarray, k: int, numbers: np.ndarray, cosines: np.ndarray, rows: RowBitmap
    ) -> np.ndarray:
        """The k best of `rows` by code in lists with these `numbers` and `cosines`, as `rank_lists` returned them, for
        a reduced query (1, r).
        """
        numbers, cosines = np.ascontiguousarray(numbers), np.ascontiguousarray(cosines)
        scores, nearest = np.empty(k, np.float32), np.empty(k, np.int64)
        params = faiss.SearchParametersIVF(sel=rows.selector(), nprobe=len(numbers))  # type: ignore[call-arg]
        pointers = [faiss.swig_ptr(array) for array in (numbers, cosines, scores, nearest)]
        self._ivf.search_preassigned_c(1, faiss.swig_ptr(reduced), k, *pointers, False, params)
        return nearest[nearest >= 0]

    def list_numbers(self) -> np.ndarray:
        """The number of the list that each row is in, int32 (n,)."""
        numbers = np.empty(self._ivf.ntotal, np.int32)
        for number in range(self.count):
            size = self._ivf.invlists.list_size(number)
            if size:
                numbers[faiss.rev_swig_ptr(self._ivf.invlists.get_ids(number), size)] = number
        return numbers


def _axes(index: faiss.IndexPreTransform) -> np.ndarray | None:
    chain = cast(Any, index.chain)
    if chain.size() == 0:
        return None
    transform = cast(Any, faiss.downcast_VectorTransform(chain.at(0)))
    return faiss.vector_to_array(transform.A).reshape(transform.d_out, transform.d_in)
