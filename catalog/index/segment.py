"""An immutable run of normalised vectors that FAISS searches exactly."""

from __future__ import annotations

import faiss
import numpy as np


class Segment:
    """Vectors float32 (n, d), normalised here, and the model of each row. Never changed once made."""

    def __init__(self, model_ids: np.ndarray, vectors: np.ndarray) -> None:
        self.model_ids = model_ids  # (n,) int64
        self._index = faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(normalised(vectors))
        self._rows = {int(model_id): row for row, model_id in enumerate(model_ids)}

    def __len__(self) -> int:
        return len(self.model_ids)

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The models (m,) and normalised vectors (m, d) of some rows (m,), copied: FAISS frees its own with itself."""
        held = faiss.rev_swig_ptr(self._index.get_xb(), self._index.ntotal * self._index.d)
        return self.model_ids[rows], held.reshape(-1, self._index.d)[rows]

    def rows_of(self, model_ids: np.ndarray) -> np.ndarray:
        """The rows of those models that are in here, (m,) int64."""
        rows = (self._rows.get(int(model_id)) for model_id in model_ids)
        return np.fromiter((row for row in rows if row is not None), dtype=np.int64)

    def search(self, query: np.ndarray, k: int, hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The k best rows that are not `hidden` (rows, int64) for a normalised query (d,).

        Returns the models and their cosines, best first, fewer than k when there are fewer.
        """
        k = min(k, len(self) - len(hidden))
        if k <= 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        selector = faiss.IDSelectorNot(faiss.IDSelectorBatch(hidden)) if len(hidden) else None
        cosines, rows = self._index.search(query[None], k, params=faiss.SearchParameters(sel=selector))  # type: ignore[call-arg]
        return self.model_ids[rows[0]], cosines[0]


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32 (n, d); a row of zeros stays one."""
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    # in float64: the squares of very small and very large float32 entries do not fit into float32
    norms = np.sqrt(np.einsum("...d,...d->...", vectors, vectors, dtype=np.float64))[..., None]
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
