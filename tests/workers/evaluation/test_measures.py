"""The measures agree with scikit-learn, which they do not use."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, silhouette_samples

from workers.evaluation import measures

LABELS = np.repeat([0, 1, 2], [3, 4, 5])


@pytest.fixture
def vectors() -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.normal(size=(3, 8))[LABELS] + 0.8 * generator.normal(size=(12, 8))


def repeated(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.repeat(values, weights.astype(int), axis=0)


def test_cosines_match_those_of_the_vectors(vectors: np.ndarray):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(measures.cosines(vectors @ vectors.T), unit @ unit.T, atol=1e-12)


def test_zero_vector_has_distance_one_to_all_others(vectors: np.ndarray):
    vectors[3] = 0
    distance = measures.distances(vectors @ vectors.T)
    assert distance[3, 3] == 0
    assert (np.delete(distance[3], 3) == 1).all()


def test_centering_inner_products_centers_the_vectors(vectors: np.ndarray):
    shifted = vectors - vectors.mean(axis=0)
    np.testing.assert_allclose(measures.centered(vectors @ vectors.T), shifted @ shifted.T, atol=1e-12)


def test_distances_are_clipped(vectors: np.ndarray):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = np.clip(1 - unit @ unit.T, 0, 1)
    np.fill_diagonal(expected, 0)
    assert (unit @ unit.T).min() < 0
    np.testing.assert_allclose(measures.distances(vectors @ vectors.T), expected, atol=1e-12)


def test_silhouettes_match_scikit_learn(vectors: np.ndarray):
    distance = measures.distances(vectors @ vectors.T)
    expected = silhouette_samples(distance, LABELS, metric="precomputed")
    np.testing.assert_allclose(measures.silhouettes(distance, LABELS), expected)
    assert measures.silhouette(distance, LABELS) == pytest.approx(expected.mean())


def test_silhouette_is_zero_for_the_only_model_of_a_label():
    distance = np.array([[0, 0.1, 1], [0.1, 0, 1], [1, 1, 0]])
    assert measures.silhouettes(distance, np.array([0, 0, 1])).tolist() == [0.9, 0.9, 0]


def test_nearest_accuracy_uses_the_nearest_other_model():
    distance = np.array([[0, 0.3, 0.2], [0.3, 0, 0.5], [0.2, 0.5, 0]])
    assert measures.nearest_accuracy(distance, np.array([0, 0, 1])) == pytest.approx(1 / 3)


def perturb_last_bits(vectors: np.ndarray, seed: int) -> np.ndarray:
    """Change the last bits of float32 vectors, as a different number of threads does."""
    return vectors * (1 + 1e-7 * np.random.default_rng(seed).normal(size=vectors.shape))


@pytest.mark.parametrize("seed", range(5))
def test_first_of_several_ties_counts_despite_rounding(seed: int):
    rows = np.array([[1.0, 2, 3], [3, 2, 1], [1, 2, 3], [1, 2, 3], [3, 2, 1], [2, 2, 2]])  # with duplicates
    vectors = perturb_last_bits(rows, seed)
    distance = measures.distances(vectors @ vectors.T)
    assert measures.nearest_accuracy(distance, np.array([0, 1, 1, 0, 1, 1])) == pytest.approx(3 / 6)


@pytest.mark.parametrize("seed", range(5))
def test_silhouette_of_identical_models_is_zero_despite_rounding(seed: int):
    vectors = perturb_last_bits(np.tile([0.1, 0.7, 0.3], (6, 1)), seed)
    distance = measures.distances(vectors @ vectors.T)
    assert measures.silhouettes(distance, np.array([0, 0, 0, 1, 1, 1])).tolist() == [0] * 6


@pytest.mark.parametrize("seed", range(5))
def test_adjusted_rand_matches_scikit_learn(seed: int):
    clusters = np.random.default_rng(seed).integers(0, 4, len(LABELS))
    assert measures.adjusted_rand(LABELS, clusters) == pytest.approx(adjusted_rand_score(LABELS, clusters))


def test_noise_is_not_a_cluster():
    clusters = np.array([0, 0, 0, -1, -1, -1, -1, 1, 1, 1, 1, 1])
    singletons = np.array([0, 0, 0, 5, 6, 7, 8, 1, 1, 1, 1, 1])
    assert measures.adjusted_rand(LABELS, clusters) == pytest.approx(adjusted_rand_score(LABELS, singletons))
    assert measures.adjusted_rand(LABELS, clusters) < 1


def test_weights_equal_repeated_models_that_ignore_their_copies(vectors: np.ndarray):
    """Brute force over a list that contains the copies; copies of one model are not compared with each other."""
    weights = np.array([2, 1, 0, 1, 3, 0, 0, 2, 2, 1, 0, 0], dtype=float)
    copies = repeated(np.arange(12), weights)
    distance = measures.distances(vectors @ vectors.T)
    scores, hits = [], []
    for model in copies:
        others = [other for other in copies if other != model]
        means = {label: np.mean([distance[model, o] for o in others if LABELS[o] == label]) for label in range(3)}
        a = means.pop(LABELS[model])
        b = min(means.values())
        scores.append((b - a) / max(a, b))
        hits.append(LABELS[min(others, key=lambda other: distance[model, other])] == LABELS[model])
    assert measures.silhouette(distance, LABELS, weights) == pytest.approx(np.mean(scores))
    assert measures.nearest_accuracy(distance, LABELS, weights) == pytest.approx(np.mean(hits))


def test_density_clusters_find_groups_and_mark_outliers_as_noise():
    generator = np.random.default_rng(1)
    centers = np.eye(6)[np.repeat([0, 1, 2], 5)]
    vectors = np.concatenate([centers + 0.02 * generator.normal(size=centers.shape), np.eye(6)[5:]])
    clusters = measures.density_clusters(vectors @ vectors.T, 3)
    assert adjusted_rand_score(np.repeat([0, 1, 2], 5), clusters[:15]) == 1
    assert clusters[15] == -1


def test_adjusted_rand_is_unbiased_in_resamples_of_small_labels():
    """The agreement of the clusters with the labels does not depend on which models were drawn."""
    clusters = np.array([0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1])
    weights = np.array([2, 1, 0, 2, 2, 0, 0, 1, 1, 1, 2, 0], dtype=float)
    assert measures.adjusted_rand(LABELS, clusters, weights) == pytest.approx(adjusted_rand_score(LABELS, clusters))
