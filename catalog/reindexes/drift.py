"""How the nearest neighbors of models change from one measurement to another. Pure functions of arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from catalog.vectors.numeric import EPSILON, normalize

PERCENTILES = (5, 25, 50, 75, 95)
MAX_NAMED = 10  # models in `most_changed`
BINS = 10  # of the histogram of overlaps, from 0 to 1


@dataclass(frozen=True)
class Distribution:
    """Mean and percentiles (`PERCENTILES`) of one metric over the models."""

    mean: float
    percentiles: list[float]

    @classmethod
    def from_values(cls, values: np.ndarray) -> Distribution:
        return cls(float(values.mean()), np.percentile(values, PERCENTILES).astype(float).tolist())


@dataclass(frozen=True)
class Drift:
    """The changes among `models` models, each compared by its `k` nearest neighbors among the same models.

    `overlap` is the share of a model's neighbors that stay, and `overlaps` lists it by row. `cosine` is between the old
    and the new vector (None if the dimensions differ), `norm_ratio` is new to old. `most_changed` are the rows of the
    models with the lowest overlap, lowest first.
    """

    models: int
    k: int
    overlap: Distribution
    histogram: list[int]
    nearest_changed: float
    cosine: Distribution | None
    norm_ratio: Distribution
    overlaps: list[float]
    most_changed: list[int]


def measure_drift(old: np.ndarray, new: np.ndarray, k: int = 10) -> Drift | None:
    """Compare the old vectors (n, d) of some models with the new ones (n, e).

    None for fewer than three models, whose neighbors cannot change.
    """
    n = len(old)
    k = min(k, n - 2)
    if k < 1:
        return None
    before, after = nearest_neighbors(old, k), nearest_neighbors(new, k)
    overlaps = np.array([len(np.intersect1d(a, b)) / k for a, b in zip(before, after, strict=True)])
    cosines = _cosines(old, new) if old.shape == new.shape else None
    order = np.lexsort((np.zeros(n) if cosines is None else cosines, overlaps))
    return Drift(
        models=n,
        k=k,
        overlap=Distribution.from_values(overlaps),
        histogram=np.histogram(overlaps, BINS, (0, 1))[0].tolist(),
        nearest_changed=float((before[:, 0] != after[:, 0]).mean()),
        cosine=None if cosines is None else Distribution.from_values(cosines),
        norm_ratio=Distribution.from_values(
            np.linalg.norm(new, axis=1) / np.maximum(np.linalg.norm(old, axis=1), EPSILON)
        ),
        overlaps=overlaps.tolist(),
        most_changed=[int(row) for row in order[:MAX_NAMED] if overlaps[row] < 1],
    )


def nearest_neighbors(vectors: np.ndarray, k: int) -> np.ndarray:
    """The rows of each vector's k nearest others by cosine, nearest first: (n, d) -> (n, k)."""
    unit = normalize(vectors.astype(np.float64))
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    return np.argsort(-cosines, axis=1, kind="stable")[:, :k]


def _cosines(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    return np.asarray((normalize(old.astype(np.float64)) * normalize(new.astype(np.float64))).sum(axis=1))
