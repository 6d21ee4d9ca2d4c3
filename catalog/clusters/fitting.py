"""From unit vectors to clusters with their centres, radii and figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from catalog.clusters import algorithms, quality
from catalog.clusters.parameters import Parameters
from catalog.vectors.numeric import unit_rows
from catalog.vectors.reduction import reduce

INSIDE = 0.99  # share of a cluster's members that its radius takes in
BLOCK = 4_096  # rows looked at at once


@dataclass(frozen=True)
class Clustering:
    """What `fit` finds of n models. Cluster c has the rows with label c; -1 is noise.

    `centroids` (c, d) are unit vectors in the full space, `similarity` (n,) the cosine of each row to its own (NaN for
    noise), `radius` (c,) the distance 1 - cosine that 99 in 100 members are within, `medoid` (c,) the row nearest to
    the centroid, `figures` what the numbers rest on.
    """

    labels: np.ndarray
    centroids: np.ndarray
    similarity: np.ndarray
    radius: np.ndarray
    cohesion: np.ndarray
    medoid: np.ndarray
    silhouette: float | None
    parameters: Parameters
    figures: dict[str, Any]

    @property
    def sizes(self) -> np.ndarray:
        return np.bincount(self.labels[self.labels >= 0], minlength=len(self.centroids))

    @property
    def noise_share(self) -> float:
        return float((self.labels < 0).mean()) if len(self.labels) else 0.0


def fit(unit: np.ndarray, parameters: Parameters, tell: Callable[[str], None] = lambda stage: None) -> Clustering:
    """Clusters unit vectors (n, d), float32 or float16, `algorithms.EXACT` of them and fewer without a reduction.

    `tell` hears what it is at. The largest cluster is number 0. Deterministic but for what threads do to the last bits.
    """
    parameters = parameters.for_models(len(unit))
    figures: dict[str, Any] = {"dimensions": int(unit.shape[1]), "reduced_to": None, "kept": None}
    rows = unit
    if len(unit) > algorithms.EXACT and 0 < parameters.dimensions < unit.shape[1]:
        tell("reducing")
        reduced = reduce(unit, parameters.dimensions, parameters.seed)
        rows = reduced.rows
        figures |= {"reduced_to": rows.shape[1], "kept": round(reduced.kept, 6)}
    tell("clustering")
    labels = by_size(algorithms.labels(rows.astype(np.float32, copy=False), parameters))
    tell("measuring")
    centroids, similarity = centres(unit, labels)
    score = quality.silhouette_of(unit, labels, parameters.seed)
    figures["silhouette_models"] = len(quality.sample_by_cluster(labels, quality.SAMPLE, parameters.seed))
    radius, cohesion, medoid = _shapes(labels, similarity, len(centroids))
    return Clustering(labels, centroids, similarity, radius, cohesion, medoid, score, parameters, figures)


def by_size(labels: np.ndarray) -> np.ndarray:
    """The same clusters numbered from the largest to the smallest."""
    counts = np.bincount(labels[labels >= 0])
    rank = np.empty(len(counts) + 1, np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    rank[-1] = -1
    return rank[labels]


def centres(unit: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit centroids float32 (c, d), and each row's cosine to its own, float64 (n,) with NaN for noise."""
    count = int(labels.max(initial=-1)) + 1
    sums = np.zeros((count + 1, unit.shape[1]), np.float64)
    for start in range(0, len(unit), BLOCK):
        part = labels[start : start + BLOCK]
        block = unit[start : start + BLOCK].astype(np.float32)
        order = np.argsort(part, kind="stable")
        groups, firsts = np.unique(part[order], return_index=True)
        sums[groups] += np.add.reduceat(block[order], firsts, axis=0)
    centroids = unit_rows(sums[:count]).astype(np.float32, copy=False)
    similarity = np.full(len(unit), np.nan)
    for start in range(0, len(unit), BLOCK):
        part = labels[start : start + BLOCK]
        inside = np.flatnonzero(part >= 0)
        block = unit[start : start + BLOCK][inside].astype(np.float32)
        similarity[start + inside] = np.einsum("nd,nd->n", block, centroids[part[inside]])
    return centroids, similarity


def _shapes(labels: np.ndarray, similarity: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Radius, mean cosine and medoid of each cluster."""
    radius, cohesion, medoid = np.zeros(count), np.zeros(count), np.zeros(count, np.int64)
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(count + 1))
    for each in range(count):
        own = order[starts[each] : starts[each + 1]]
        cosines = similarity[own]
        radius[each] = max(0.0, float(np.quantile(1 - cosines, INSIDE)))
        cohesion[each], medoid[each] = cosines.mean(), own[cosines.argmax()]
    return radius, cohesion, medoid


def place(vector: np.ndarray, centroids: np.ndarray, radius: np.ndarray) -> tuple[int, float] | None:
    """The cluster whose centroid (c, d) is nearest to a vector (d,), and the cosine; None beyond that one's radius.

    A model of a small cluster lies further from the centroid when it was not one of those that made it: for a cluster
    of m members its radius is taken (m + 1) / (m - 1) times, see `widened`.
    """
    length = float(np.linalg.norm(vector))
    if not len(centroids) or not length:
        return None
    cosines = centroids @ (vector / length)
    best = int(cosines.argmax())
    return (best, float(cosines[best])) if 1 - cosines[best] <= radius[best] else None


def widened(radius: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Radii for models that did not help to make the centroid.

    The mean squared distance to the mean of m points is (1 - 1/m) s² for one of the points and (1 + 1/m) s² for another
    draw; on the unit sphere the squared distance is twice 1 - cosine, so the ratio (m + 1) / (m - 1) carries over.
    """
    return radius * (sizes + 1) / np.maximum(sizes - 1, 1)
