"""Against scikit-learn, which the measures do not use."""

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


def test_cosines_are_those_of_the_vectors(vectors: np.ndarray):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(measures.cosines(vectors @ vectors.T), unit @ unit.T, atol=1e-12)


def test_a_vector_of_zeros_is_like_nothing(vectors: np.ndarray):
    vectors[3] = 0
    found = measures.distances(vectors @ vectors.T)
    assert found[3, 3] == 0
    assert (np.delete(found[3], 3) == 1).all()


def test_centring_inner_products_centres_the_vectors(vectors: np.ndarray):
    shifted = vectors - vectors.mean(axis=0)
    np.testing.assert_allclose(measures.centred(vectors @ vectors.T), shifted @ shifted.T, atol=1e-12)


def test_distances_are_clipped(vectors: np.ndarray):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = np.clip(1 - unit @ unit.T, 0, 1)
    np.fill_diagonal(expected, 0)
    assert (unit @ unit.T).min() < 0
    np.testing.assert_allclose(measures.distances(vectors @ vectors.T), expected, atol=1e-12)


def test_silhouettes_are_scikit_learns(vectors: np.ndarray):
    distance = measures.distances(vectors @ vectors.T)
    expected = silhouette_samples(distance, LABELS, metric="precomputed")
    np.testing.assert_allclose(measures.silhouettes(distance, LABELS), expected)
    assert measures.silhouette(distance, LABELS) == pytest.approx(expected.mean())


def test_a_label_of_one_model_has_silhouette_zero():
    distance = np.array([[0, 0.1, 1], [0.1, 0, 1], [1, 1, 0]])
    assert measures.silhouettes(distance, np.array([0, 0, 1])).tolist() == [0.9, 0.9, 0]


def test_the_nearest_other_decides():
    distance = np.array([[0, 0.3, 0.2], [0.3, 0, 0.5], [0.2, 0.5, 0]])
    assert measures.nearest_accuracy(distance, np.array([0, 0, 1])) == pytest.approx(1 / 3)


def rounded_otherwise(vectors: np.ndarray, seed: int) -> np.ndarray:
    """The same vectors to the last bits of float32, which are others with each number of threads."""
    return vectors * (1 + 1e-7 * np.random.default_rng(seed).normal(size=vectors.shape))


@pytest.mark.parametrize("seed", range(5))
def test_of_equally_near_ones_the_first_counts_however_sums_are_rounded(seed: int):
    told = np.array([[1.0, 2, 3], [3, 2, 1], [1, 2, 3], [1, 2, 3], [3, 2, 1], [2, 2, 2]])  # models that say the same
    vectors = rounded_otherwise(told, seed)
    distance = measures.distances(vectors @ vectors.T)
    assert measures.nearest_accuracy(distance, np.array([0, 1, 1, 0, 1, 1])) == pytest.approx(3 / 6)


@pytest.mark.parametrize("seed", range(5))
def test_models_that_are_all_the_same_have_silhouette_zero_however_sums_are_rounded(seed: int):
    vectors = rounded_otherwise(np.tile([0.1, 0.7, 0.3], (6, 1)), seed)
    distance = measures.distances(vectors @ vectors.T)
    assert measures.silhouettes(distance, np.array([0, 0, 0, 1, 1, 1])).tolist() == [0] * 6


@pytest.mark.parametrize("seed", range(5))
def test_adjusted_rand_is_scikit_learns(seed: int):
    clusters = np.random.default_rng(seed).integers(0, 4, len(LABELS))
    assert measures.adjusted_rand(LABELS, clusters) == pytest.approx(adjusted_rand_score(LABELS, clusters))


def test_noise_is_no_cluster():
    clusters = np.array([0, 0, 0, -1, -1, -1, -1, 1, 1, 1, 1, 1])
    alone = np.array([0, 0, 0, 5, 6, 7, 8, 1, 1, 1, 1, 1])
    assert measures.adjusted_rand(LABELS, clusters) == pytest.approx(adjusted_rand_score(LABELS, alone))
    assert measures.adjusted_rand(LABELS, clusters) < 1


def test_weights_count_a_model_as_often_and_never_beside_its_copies(vectors: np.ndarray):
    """By brute force on a list with the copies in it, in which copies of one model do not see each other."""
    weights = np.array([2, 1, 0, 1, 3, 0, 0, 2, 2, 1, 0, 0], dtype=float)
    who = repeated(np.arange(12), weights)
    distance = measures.distances(vectors @ vectors.T)
    scores, hits = [], []
    for me in who:
        others = [other for other in who if other != me]
        means = {label: np.mean([distance[me, o] for o in others if LABELS[o] == label]) for label in range(3)}
        a = means.pop(LABELS[me])
        b = min(means.values())
        scores.append((b - a) / max(a, b))
        hits.append(LABELS[min(others, key=lambda other: distance[me, other])] == LABELS[me])
    assert measures.silhouette(distance, LABELS, weights) == pytest.approx(np.mean(scores))
    assert measures.nearest_accuracy(distance, LABELS, weights) == pytest.approx(np.mean(hits))


def test_density_clusters_find_groups_and_leave_strangers_out():
    generator = np.random.default_rng(1)
    centres = np.eye(6)[np.repeat([0, 1, 2], 5)]
    vectors = np.concatenate([centres + 0.02 * generator.normal(size=centres.shape), np.eye(6)[5:]])
    found = measures.density_clusters(vectors @ vectors.T, 3)
    assert adjusted_rand_score(np.repeat([0, 1, 2], 5), found[:15]) == 1
    assert found[15] == -1


def test_a_resample_of_small_labels_is_not_taken_for_one_of_smaller_labels():
    """Whoever is drawn, four models in two clusters of two labels agree with the labels as much as they do."""
    clusters = np.array([0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1])
    weights = np.array([2, 1, 0, 2, 2, 0, 0, 1, 1, 1, 2, 0], dtype=float)
    assert measures.adjusted_rand(LABELS, clusters, weights) == pytest.approx(adjusted_rand_score(LABELS, clusters))
