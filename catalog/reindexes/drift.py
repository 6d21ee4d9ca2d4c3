"""How neighbours changed from one measurement of the same models to another. Maths alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from catalog.vectors.numeric import TINY, unit_rows

PERCENTILES = (5, 25, 50, 75, 95)
MOST = 10  # models named as those that moved most
BINS = 10  # of the histogram of overlaps, over 0 to 1


@dataclass(frozen=True)
class Spread:
    """Mean and percentiles (`PERCENTILES`) of one figure over the models."""

    mean: float
    percentiles: list[float]

    @classmethod
    def of(cls, values: np.ndarray) -> Spread:
        return cls(float(values.mean()), [float(each) for each in np.percentile(values, PERCENTILES)])


@dataclass(frozen=True)
class Drift:
    """Of `models` compared, with their `k` nearest by cosine among themselves. `overlap` is the share of them that
    stayed; `cosine` of the old to the new vector (None: other dimensions), `norm_ratio` new to old. `most` are rows of
    the models whose neighbours changed most, first the one that changed most.
    """

    models: int
    k: int
    overlap: Spread
    histogram: list[int]
    nearest_changed: float
    cosine: Spread | None
    norm_ratio: Spread
    overlaps: list[float]
    most: list[int]


def drift(old: np.ndarray, new: np.ndarray, k: int = 10) -> Drift | None:
    """Compare vectors (n, d) with those of the same models (n, e); None for fewer than three, where every model has the
    same neighbours whatever was measured.
    """
    n = len(old)
    k = min(k, n - 2)
    if k < 1:
        return None
    before, after = nearest(old, k), nearest(new, k)
    overlaps = np.array([len(np.intersect1d(a, b)) / k for a, b in zip(before, after, strict=True)])
    cosines = _cosines(old, new) if old.shape == new.shape else None
    told = np.zeros(n) if cosines is None else cosines
    return Drift(
        models=n,
        k=k,
        overlap=Spread.of(overlaps),
        histogram=np.histogram(overlaps, BINS, (0, 1))[0].tolist(),
        nearest_changed=float((before[:, 0] != after[:, 0]).mean()),
        cosine=None if cosines is None else Spread.of(cosines),
        norm_ratio=Spread.of(np.linalg.norm(new, axis=1) / np.maximum(np.linalg.norm(old, axis=1), TINY)),
        overlaps=overlaps.tolist(),
        most=[int(each) for each in np.lexsort((told, overlaps))[:MOST] if overlaps[each] < 1],
    )


def nearest(vectors: np.ndarray, k: int) -> np.ndarray:
    """Rows of the k nearest by cosine of each (n, d), itself left out, the nearest first: (n, k)."""
    unit = unit_rows(vectors.astype(np.float64))
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    return np.argsort(-cosines, axis=1, kind="stable")[:, :k]


def _cosines(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    return np.asarray((unit_rows(old.astype(np.float64)) * unit_rows(new.astype(np.float64))).sum(axis=1))
