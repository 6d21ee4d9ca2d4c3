"""How well a geometry agrees with labels: pure functions of distances, (n, n), and class indices, (n,).

All of them take weights, (n,): how often each model counts. Copies of one model are never each other's neighbors and
form no pair, so that the duplicates in a bootstrap resample do not inflate the scores. Weights of one give the usual
definitions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# vectors are float32: distances that differ by less are ties, whose order would depend on the rounding of sums
TIE_TOLERANCE = 1e-6
ZERO_DISTANCE = 1e-12  # two vectors that are nearer are equal


def cosines(gram: Floats) -> Floats:
    """Cosines of vectors from their inner products, (n, n); a zero vector has cosine 0 to every vector."""
    norms = np.sqrt(np.diag(gram))
    inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    return gram * inverse[:, None] * inverse


def centered(gram: Floats) -> Floats:
    """Inner products of the vectors minus their mean, (n, n) (double centering, as in classical scaling)."""
    rows = gram.mean(axis=0)
    return gram - rows[:, None] - rows + gram.mean()


def distances(gram: Floats) -> Floats:
    """`clip(1 - cos, 0, 1)`, the distance of the paper's released code, with zeros on the diagonal."""
    distance = np.clip(1.0 - cosines(gram), 0.0, 1.0)
    distance[distance < ZERO_DISTANCE] = 0.0
    np.fill_diagonal(distance, 0.0)
    return distance


def silhouettes(distance: Floats, labels: Ints, weights: Floats | None = None) -> Floats:
    """Each model's silhouette, (n,) (Rousseeuw 1987): (b - a) / max(a, b).

    a is the mean distance to the other models of its label, b the smallest mean distance to the models of another
    label. A model that is the only one of its label has silhouette 0.
    """
    weights = np.ones(len(labels)) if weights is None else weights
    member = weights[:, None] * (labels[:, None] == np.arange(labels.max() + 1))  # (n, L)
    sums, counts = distance @ member, np.broadcast_to(member.sum(axis=0), member.shape).copy()
    own_label = np.arange(len(labels)), labels
    counts[own_label] -= weights
    means = np.divide(sums, counts, out=np.full_like(sums, np.inf), where=counts > 0)
    a = means[own_label].copy()
    means[own_label] = np.inf
    b = means.min(axis=1)
    defined = np.isfinite(a) & np.isfinite(b) & (np.maximum(a, b) > 0)
    return np.divide(b - a, np.maximum(a, b), out=np.zeros(len(labels)), where=defined)


def silhouette(distance: Floats, labels: Ints, weights: Floats | None = None) -> float:
    """The mean of `silhouettes`."""
    return float(np.average(silhouettes(distance, labels, weights), weights=weights))


def nearest_accuracy(distance: Floats, labels: Ints, weights: Floats | None = None) -> float:
    """The share of models whose nearest neighbor has their label; among ties the first model counts."""
    others = distance.copy()
    np.fill_diagonal(others, np.inf)
    if weights is not None:
        others[:, weights == 0] = np.inf
    nearest = (others <= others.min(axis=1, keepdims=True) + TIE_TOLERANCE).argmax(axis=1)
    return float(np.average(labels[nearest] == labels, weights=weights))


def adjusted_rand(labels: Ints, clusters: Ints, weights: Floats | None = None) -> float:
    """Agreement of two partitions over pairs of models, corrected for chance (Hubert and Arabie 1985).

    Two models in cluster -1 (noise) are not in the same cluster. Copies of a model form no pair with each other, so the
    pairs of each label are scaled up to the number that its size implies; otherwise labels would seem smaller in a
    resample.
    """
    weights = np.ones(len(labels)) if weights is None else weights
    upper = np.triu_indices(len(labels), 1)
    pairs = (weights[:, None] * weights * _pair_scale(labels, weights))[upper]
    same_label = (labels[:, None] == labels)[upper]
    same_cluster = ((clusters[:, None] == clusters) & (clusters >= 0))[upper]
    both, one, other, neither = (
        float(pairs[first & second].sum())
        for first in (same_label, ~same_label)
        for second in (same_cluster, ~same_cluster)
    )
    below = (both + one) * (one + neither) + (both + other) * (other + neither)
    return 1.0 if below == 0 else 2 * (both * neither - one * other) / below


def _pair_scale(labels: Ints, weights: Floats) -> Floats:
    """The factor of each pair's weight, (n, n): n (n - 1) / (n^2 - sum of squares) within a label of n models."""
    size, squares = np.bincount(labels, weights), np.bincount(labels, weights**2)
    distinct = size**2 - squares
    scale = np.divide(size * (size - 1), distinct, out=np.ones_like(size), where=distinct > 0)
    return np.where(labels[:, None] == labels, scale[labels], 1.0)


def density_clusters(gram: Floats, min_cluster_size: int) -> Ints:
    """HDBSCAN clusters, (n,), numbered from 0, with -1 for noise.

    The metric is the Euclidean distance between unit vectors, which orders pairs as the cosine does.
    """
    from sklearn.cluster import HDBSCAN

    chord = np.sqrt(np.clip(2.0 - 2.0 * cosines(gram), 0.0, None))
    np.fill_diagonal(chord, 0.0)
    fitted = HDBSCAN(min_cluster_size=min_cluster_size, metric="precomputed", copy=True).fit(chord)
    return np.asarray(fitted.labels_, dtype=np.int64)
