"""The shipped vectors reproduce documented results, and parameters are chosen without the evaluated labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.geometry import (
    candidates,
    cosine_distance,
    evaluate_family,
    folds,
    nearest_is_correct,
    select_candidate,
)
from benchmarks.hard_pool.representations import Embedded, easy, hard, representations, unit
from tests.support.silhouette import plain_silhouette

SHIPPED = Path(__file__).parents[2] / "benchmarks" / "hard_pool"


@pytest.fixture(scope="module")
def separable() -> Embedded:
    """Four well separated domains of four models."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.array(["a", "b", "c", "d"]), 4)
    vectors = np.repeat(np.eye(4, 12) * 5, 4, axis=0) + generator.normal(size=(16, 12)) * 0.1
    return Embedded(labels, labels, [{}] * 16, {"x": vectors.astype(np.float32)}, np.ones(7, np.float32))


def test_easy_pool_has_the_silhouette_of_the_scorecard():
    pool = easy()
    assert plain_silhouette(representations(pool)["delta_activations"], pool.labels) == pytest.approx(0.831, abs=0.001)


def test_pairs_of_domains_are_held_out_once_each():
    labels = np.repeat(np.arange(5), 3)
    held_out = list(folds(labels))
    assert len(held_out) == 10
    assert {int(mask.sum()) for mask in held_out} == {6}
    assert sum(held_out).tolist() == [4] * 15


def test_separable_pool_has_a_high_silhouette(separable: Embedded):
    family = [candidate for candidate in candidates() if candidate.family == "centered"]
    _, metrics = evaluate_family(separable.arrays["x"], separable, family)
    assert metrics["held_out"] > 0.9
    assert metrics["held_out_nearest"] == metrics["new_nearest"] == 1


def test_parameters_are_chosen_without_the_evaluated_labels(separable: Embedded):
    """Wrong labels in two domains do not change the choice of the folds that hold both domains out."""
    family = [candidate for candidate in candidates() if candidate.family == "leading"]
    swapped = separable.labels.copy()
    swapped[:8] = np.tile(["a", "b"], 4)
    wrong = replace(separable, labels=swapped)
    inside = ~next(iter(folds(separable.class_indices)))
    right_choice, wrong_choice = (
        select_candidate(family, separable.arrays["x"], pool.labels, inside) for pool in (separable, wrong)
    )
    assert right_choice == wrong_choice
    assert evaluate_family(separable.arrays["x"], wrong, family)[1]["held_out"] < 0.6


@pytest.mark.parametrize("candidate", candidates()[::7], ids=lambda candidate: candidate.family)
def test_every_family_computes_distances(candidate, separable: Embedded):
    vectors = separable.arrays["x"]
    distance = candidate.distance(vectors, vectors)
    assert distance.shape == (16, 16)
    assert np.allclose(distance, distance.T, atol=1e-5)
    assert (distance >= 0).all()
    assert np.allclose(np.diag(distance), 0)


def test_nearest_of_a_mislabeled_model_is_incorrect(separable: Embedded):
    labels = separable.class_indices.copy()
    labels[0] = 1
    correct = nearest_is_correct(cosine_distance(separable.arrays["x"]), labels)
    assert not correct[0]
    assert correct[4:].all()


def test_shipped_files_are_small():
    assert sum(path.stat().st_size for path in SHIPPED.glob("*.npz")) < 4e6


def test_supervised_and_preferred_fine_tunes_are_separate_pools():
    pool, preferred = hard()
    assert not any(label.startswith("prefers-") for label in pool.labels)
    assert len(set(preferred.labels)) == 3


def test_concatenated_parts_have_equal_norms():
    pool = easy()
    both = representations(pool)["last and weighted"]
    first, second = np.split(both, 2, axis=1)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1), rtol=1e-3)
    np.testing.assert_allclose(unit(representations(pool)["delta_activations"]), first, rtol=1e-3, atol=1e-5)
