from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, silhouette_score

from catalog.clusters import algorithms, fitting, quality
from catalog.clusters.parameters import Parameters
from catalog.errors import InvalidInput
from tests.support.blobs import blobs

ROOT = Path(__file__).parents[3]
POOL = ROOT / "benchmarks" / "hard_pool" / "easy.npz"


@pytest.fixture
def pool() -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of the fifteen adapters of the example pool with the five default probes, and their domains."""
    with np.load(POOL) as arrays:
        vectors = arrays["probes"][:, :5].astype(np.float32).mean(axis=1)
        domains = arrays["labels"]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), domains


def test_default_parameters_find_the_five_domains_of_the_pool(pool: tuple[np.ndarray, np.ndarray]):
    unit, domains = pool
    clustering = fitting.fit(unit, Parameters())
    assert adjusted_rand_score(domains, clustering.labels) == 1
    assert clustering.noise_share == 0
    assert clustering.silhouette == pytest.approx(expected_silhouette(unit, clustering.labels), abs=1e-6)


def expected_silhouette(unit: np.ndarray, labels: np.ndarray) -> float:
    distances = np.clip(1 - unit.astype(np.float64) @ unit.T, 0, 1)
    np.fill_diagonal(distances, 0)
    return silhouette_score(distances, labels, metric="precomputed")


@pytest.mark.parametrize(
    "parameters", [Parameters(), Parameters("kmeans", clusters=4), Parameters("agglomerative", clusters=4)]
)
def test_each_algorithm_finds_well_separated_groups(parameters: Parameters):
    unit, groups = blobs(4, 30)
    assert adjusted_rand_score(groups, fitting.fit(unit, parameters).labels) == 1


@pytest.mark.parametrize(
    "parameters", [Parameters(), Parameters("kmeans", clusters=6), Parameters("agglomerative", clusters=6)]
)
def test_large_space_is_reduced_before_clustering(parameters: Parameters, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(algorithms, "MAX_EXACT_ROWS", 600)
    monkeypatch.setattr(algorithms, "COARSE_CELLS", 60)
    unit, groups = blobs(6, 200, dimension=128, spread=0.03)
    clustering = fitting.fit(unit.astype(np.float16), parameters)
    assert clustering.metrics["reduced_to"] == 64
    assert adjusted_rand_score(groups, clustering.labels) > 0.95
    assert clustering.noise_share < 0.05


def test_outlier_is_noise():
    unit, _ = blobs(3, 30)
    outlier = np.eye(1, 24, 20, dtype=np.float32)
    clustering = fitting.fit(np.concatenate([unit, outlier]), Parameters())
    assert clustering.labels[-1] == -1
    assert np.isnan(clustering.similarity[-1])


def test_too_few_models_are_noise():
    unit, _ = blobs(2, 1)
    clustering = fitting.fit(unit, Parameters())
    assert (clustering.labels == -1).all()
    assert clustering.silhouette is None


def test_largest_cluster_is_first():
    unit, groups = blobs(3, 20)
    rows = np.concatenate([np.flatnonzero(groups == 0)[:6], np.flatnonzero(groups > 0)])
    assert fitting.fit(unit[rows], Parameters()).sizes.tolist() == [20, 20, 6]


def test_radius_cohesion_and_medoid_are_those_of_the_members():
    unit, _ = blobs(3, 40)
    clustering = fitting.fit(unit, Parameters())
    for cluster in range(3):
        members = np.flatnonzero(clustering.labels == cluster)
        centroid = unit[members].mean(axis=0)
        cosines = unit[members] @ (centroid / np.linalg.norm(centroid))
        assert clustering.cohesion[cluster] == pytest.approx(cosines.mean(), abs=1e-5)
        assert clustering.medoid[cluster] == members[cosines.argmax()]
        assert clustering.radius[cluster] == pytest.approx(np.quantile(1 - cosines, 0.99), abs=1e-5)


def test_nearest_cluster_assigns_held_out_models_and_rejects_outliers():
    unit, groups = blobs(3, 40)
    held_out = np.arange(0, len(unit), 10)
    fitted = np.delete(np.arange(len(unit)), held_out)
    clustering = fitting.fit(unit[fitted], Parameters())
    radius = fitting.out_of_sample_radius(clustering.radius, clustering.sizes)
    nearest = [fitting.nearest_cluster(5 * unit[row], clustering.centroids, radius) for row in held_out]
    assigned = [(row, match[0]) for row, match in zip(held_out, nearest, strict=True) if match]
    assert len(assigned) >= len(held_out) - 1
    assert adjusted_rand_score(groups[[row for row, _ in assigned]], [cluster for _, cluster in assigned]) == 1
    assert fitting.nearest_cluster(np.eye(24)[20], clustering.centroids, radius) is None
    assert fitting.nearest_cluster(np.zeros(24), clustering.centroids, radius) is None


def test_sampled_silhouette_is_close_to_the_exact_one(monkeypatch: pytest.MonkeyPatch):
    unit, _ = blobs(5, 200, spread=0.3)
    labels = np.random.default_rng(0).integers(0, 3, 1000) + 2 * (unit[:, 0] > 0.4)
    exact = quality.sampled_silhouette(unit, labels, 0)
    assert exact == pytest.approx(expected_silhouette(unit, labels), abs=1e-5)
    monkeypatch.setattr(quality, "SILHOUETTE_SAMPLE", 400)
    assert quality.sampled_silhouette(unit, labels, 0) == pytest.approx(exact, abs=0.02)


def test_adjusted_rand_equals_scikit_learn():
    generator = np.random.default_rng(0)
    a, b = generator.integers(-1, 4, 200), generator.integers(-1, 3, 200)
    assert quality.adjusted_rand(quality.contingency_table(a, b)) == pytest.approx(adjusted_rand_score(a, b))
    assert quality.adjusted_rand(quality.contingency_table(a, a + 7)) == 1


@pytest.mark.parametrize("fields", [{"algorithm": "kmeans"}, {"clusters": 3}])
def test_parameters_that_do_not_fit_the_algorithm_raise_invalid_input(fields: dict):
    with pytest.raises(InvalidInput):
        Parameters(**fields)
