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
SHIPPED = ROOT / "benchmarks" / "hard_pool" / "easy.npz"


@pytest.fixture
def pool() -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of the example pool's fifteen adapters, by the five default probes, and their domains."""
    with np.load(SHIPPED) as found:
        vectors = found["probes"][:, :5].astype(np.float32).mean(axis=1)
        domains = found["labels"]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), domains


def test_the_default_finds_the_five_domains_of_the_pool(pool: tuple[np.ndarray, np.ndarray]):
    unit, domains = pool
    found = fitting.fit(unit, Parameters())
    assert adjusted_rand_score(domains, found.labels) == 1
    assert found.noise_share == 0
    assert found.silhouette == pytest.approx(expected_silhouette(unit, found.labels), abs=1e-6)


def expected_silhouette(unit: np.ndarray, labels: np.ndarray) -> float:
    distances = np.clip(1 - unit.astype(np.float64) @ unit.T, 0, 1)
    np.fill_diagonal(distances, 0)
    return silhouette_score(distances, labels, metric="precomputed")


@pytest.mark.parametrize(
    "parameters", [Parameters(), Parameters("kmeans", clusters=4), Parameters("agglomerative", clusters=4)]
)
def test_each_algorithm_finds_groups_that_are_plain_to_see(parameters: Parameters):
    unit, groups = blobs(4, 30)
    assert adjusted_rand_score(groups, fitting.fit(unit, parameters).labels) == 1


@pytest.mark.parametrize(
    "parameters", [Parameters(), Parameters("kmeans", clusters=6), Parameters("agglomerative", clusters=6)]
)
def test_a_large_space_is_reduced_and_its_groups_are_found(parameters: Parameters, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(algorithms, "EXACT", 600)
    monkeypatch.setattr(algorithms, "COARSE", 60)
    unit, groups = blobs(6, 200, dimension=128, spread=0.03)
    found = fitting.fit(unit.astype(np.float16), parameters)
    assert found.figures["reduced_to"] == 64
    assert adjusted_rand_score(groups, found.labels) > 0.95
    assert found.noise_share < 0.05


def test_what_is_far_from_all_is_noise():
    unit, _ = blobs(3, 30)
    stray = np.eye(1, 24, 20, dtype=np.float32)
    found = fitting.fit(np.concatenate([unit, stray]), Parameters())
    assert found.labels[-1] == -1
    assert np.isnan(found.similarity[-1])


def test_too_few_models_are_all_noise():
    unit, _ = blobs(2, 1)
    found = fitting.fit(unit, Parameters())
    assert (found.labels == -1).all()
    assert found.silhouette is None


def test_the_largest_cluster_comes_first():
    unit, groups = blobs(3, 20)
    some = np.concatenate([np.flatnonzero(groups == 0)[:6], np.flatnonzero(groups > 0)])
    assert fitting.fit(unit[some], Parameters()).sizes.tolist() == [20, 20, 6]


def test_centroids_radii_and_medoids_are_those_of_the_members():
    unit, _ = blobs(3, 40)
    found = fitting.fit(unit, Parameters())
    for cluster in range(3):
        own = np.flatnonzero(found.labels == cluster)
        centre = unit[own].mean(axis=0)
        cosines = unit[own] @ (centre / np.linalg.norm(centre))
        assert found.cohesion[cluster] == pytest.approx(cosines.mean(), abs=1e-5)
        assert found.medoid[cluster] == own[cosines.argmax()]
        assert found.radius[cluster] == pytest.approx(np.quantile(1 - cosines, 0.99), abs=1e-5)


def test_a_new_model_is_placed_with_the_nearest_cluster_and_a_stray_one_with_none():
    unit, groups = blobs(3, 40)
    held_out = np.arange(0, len(unit), 10)
    kept = np.delete(np.arange(len(unit)), held_out)
    found = fitting.fit(unit[kept], Parameters())
    reach = fitting.widened(found.radius, found.sizes)
    placed = [fitting.place(5 * unit[row], found.centroids, reach) for row in held_out]
    inside = [(row, place[0]) for row, place in zip(held_out, placed, strict=True) if place]
    assert len(inside) >= len(held_out) - 1
    assert adjusted_rand_score(groups[[row for row, _ in inside]], [cluster for _, cluster in inside]) == 1
    assert fitting.place(np.eye(24)[20], found.centroids, reach) is None
    assert fitting.place(np.zeros(24), found.centroids, reach) is None


def test_a_silhouette_of_a_sample_is_near_that_of_all(monkeypatch: pytest.MonkeyPatch):
    unit, _ = blobs(5, 200, spread=0.3)
    labels = np.random.default_rng(0).integers(0, 3, 1000) + 2 * (unit[:, 0] > 0.4)
    whole = quality.silhouette_of(unit, labels, 0)
    assert whole == pytest.approx(expected_silhouette(unit, labels), abs=1e-5)
    monkeypatch.setattr(quality, "SAMPLE", 400)
    assert quality.silhouette_of(unit, labels, 0) == pytest.approx(whole, abs=0.02)


def test_the_adjusted_rand_index_is_scikit_learns():
    generator = np.random.default_rng(0)
    mine, theirs = generator.integers(-1, 4, 200), generator.integers(-1, 3, 200)
    assert quality.adjusted_rand(quality.crossed(mine, theirs)) == pytest.approx(adjusted_rand_score(mine, theirs))
    assert quality.adjusted_rand(quality.crossed(mine, mine + 7)) == 1


@pytest.mark.parametrize("given", [{"algorithm": "kmeans"}, {"clusters": 3}])
def test_parameters_that_do_not_fit_the_algorithm_are_refused(given: dict):
    with pytest.raises(InvalidInput):
        Parameters(**given)
