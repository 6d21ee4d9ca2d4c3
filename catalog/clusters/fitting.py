"""From unit vectors to clusters with their centroids, radii and quality metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from catalog.clusters import algorithms, quality
from catalog.clusters.parameters import Parameters
from catalog.vectors.numeric import normalize
from catalog.vectors.reduction import reduce_dimensions

RADIUS_QUANTILE = 0.99  # share of a cluster's members within its radius
BLOCK_ROWS = 4_096  # rows converted to float32 at a time


@dataclass(frozen=True)
class Clustering:
    """Clusters of n models. Cluster c consists of the rows with label c; -1 is noise.

    `centroids` (c, d) are unit vectors in the full space. `similarity` (n,) is the cosine of each row to the centroid
    of its cluster (NaN for noise). Per cluster (c,): `radius` is the distance 1 - cosine that contains 99% of the
    members, `cohesion` their mean cosine, `medoid` the row nearest to the centroid. `unrelated` is the cosine that few
    models exceed to a model of another cluster (None for fewer than two clusters). `metrics` describes how the clusters
    were computed.
    """

    labels: np.ndarray
    centroids: np.ndarray
    similarity: np.ndarray
    radius: np.ndarray
    cohesion: np.ndarray
    medoid: np.ndarray
    silhouette: float | None
    unrelated: float | None
    parameters: Parameters
    metrics: dict[str, Any]

    @property
    def sizes(self) -> np.ndarray:
        return np.bincount(self.labels[self.labels >= 0], minlength=len(self.centroids))

    @property
    def noise_share(self) -> float:
        return float((self.labels < 0).mean()) if len(self.labels) else 0.0


def fit(
    unit: np.ndarray, parameters: Parameters, report_stage: Callable[[str], None] = lambda stage: None
) -> Clustering:
    """Cluster unit vectors (n, d), float32 or float16. Up to `algorithms.MAX_EXACT_ROWS` rows are not reduced first.

    `report_stage` is called with the name of each stage. Cluster 0 is the largest. The result is deterministic up to
    the order in which threads add floating-point numbers.
    """
    parameters = parameters.for_models(len(unit))
    metrics: dict[str, Any] = {"dimensions": int(unit.shape[1]), "reduced_to": None, "squared_norm_kept": None}
    rows = unit
    if len(unit) > algorithms.MAX_EXACT_ROWS and 0 < parameters.dimensions < unit.shape[1]:
        report_stage("reducing")
        reduced = reduce_dimensions(unit, parameters.dimensions, parameters.seed)
        rows = reduced.rows
        metrics |= {"reduced_to": rows.shape[1], "squared_norm_kept": round(reduced.kept_energy, 6)}
    report_stage("clustering")
    labels = renumber_by_size(algorithms.fit_predict(rows.astype(np.float32, copy=False), parameters))
    report_stage("measuring")
    centroids, similarity = compute_centroids(unit, labels)
    silhouette = quality.sampled_silhouette(unit, labels, parameters.seed)
    sample = quality.sample_by_cluster(labels, quality.SILHOUETTE_SAMPLE, parameters.seed)
    metrics["silhouette_models"] = len(sample)
    statistics = _cluster_statistics(labels, similarity, len(centroids))
    unrelated = quality.unrelated_similarity(unit, labels, parameters.seed)
    return Clustering(labels, centroids, similarity, *statistics, silhouette, unrelated, parameters, metrics)


def renumber_by_size(labels: np.ndarray) -> np.ndarray:
    """The same clusters, numbered from the largest to the smallest."""
    counts = np.bincount(labels[labels >= 0])
    rank = np.empty(len(counts) + 1, np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    rank[-1] = -1
    return rank[labels]


def compute_centroids(unit: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit centroids float32 (c, d), and each row's cosine to the centroid of its cluster, float64 (n,), NaN for
    noise.
    """
    count = int(labels.max(initial=-1)) + 1
    sums = np.zeros((count + 1, unit.shape[1]), np.float64)
    for start in range(0, len(unit), BLOCK_ROWS):
        block_labels = labels[start : start + BLOCK_ROWS]
        block = unit[start : start + BLOCK_ROWS].astype(np.float32)
        order = np.argsort(block_labels, kind="stable")
        present, firsts = np.unique(block_labels[order], return_index=True)
        sums[present] += np.add.reduceat(block[order], firsts, axis=0)
    centroids = normalize(sums[:count]).astype(np.float32, copy=False)
    similarity = np.full(len(unit), np.nan)
    for start in range(0, len(unit), BLOCK_ROWS):
        block_labels = labels[start : start + BLOCK_ROWS]
        clustered = np.flatnonzero(block_labels >= 0)
        block = unit[start : start + BLOCK_ROWS][clustered].astype(np.float32)
        similarity[start + clustered] = np.einsum("nd,nd->n", block, centroids[block_labels[clustered]])
    return centroids, similarity


def _cluster_statistics(
    labels: np.ndarray, similarity: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Radius, mean cosine and medoid of each cluster."""
    radius, cohesion, medoid = np.zeros(count), np.zeros(count), np.zeros(count, np.int64)
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(count + 1))
    for cluster in range(count):
        members = order[starts[cluster] : starts[cluster + 1]]
        cosines = similarity[members]
        radius[cluster] = max(0.0, float(np.quantile(1 - cosines, RADIUS_QUANTILE)))
        cohesion[cluster], medoid[cluster] = cosines.mean(), members[cosines.argmax()]
    return radius, cohesion, medoid


def nearest_cluster(vector: np.ndarray, centroids: np.ndarray, radius: np.ndarray) -> tuple[int, float] | None:
    """The cluster whose centroid (c, d) is nearest to a vector (d,), and the cosine to it. None if the vector is
    outside that cluster's radius.

    For a vector that did not contribute to the centroids, pass the radii of `out_of_sample_radius`.
    """
    norm = float(np.linalg.norm(vector))
    if not len(centroids) or not norm:
        return None
    cosines = centroids @ (vector / norm)
    best = int(cosines.argmax())
    return (best, float(cosines[best])) if 1 - cosines[best] <= radius[best] else None


def out_of_sample_radius(radius: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Radii for models that did not contribute to the centroids.

    The mean squared distance to the mean of m points is (1 - 1/m) s² for one of the points and (1 + 1/m) s² for
    another draw. On the unit sphere the squared distance is 2 (1 - cosine), so the radius grows by the same ratio,
    (m + 1) / (m - 1).
    """
    return radius * (sizes + 1) / np.maximum(sizes - 1, 1)
