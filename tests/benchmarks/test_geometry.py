"""The shipped vectors give the documented figures; the study chooses without looking at what it judges."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.geometry import candidates, choose, cosine_distance, folds, judge, right
from benchmarks.hard_pool.representations import Embedded, easy, hard, representations, unit
from tests.support.silhouette import plain_silhouette

SHIPPED = Path(__file__).parents[2] / "benchmarks" / "hard_pool"


@pytest.fixture(scope="module")
def clear() -> Embedded:
    """Four domains of four models that no geometry can confuse."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.array(["a", "b", "c", "d"]), 4)
    vectors = np.repeat(np.eye(4, 12) * 5, 4, axis=0) + generator.normal(size=(16, 12)) * 0.1
    return Embedded(labels, labels, [{}] * 16, {"x": vectors.astype(np.float32)}, np.ones(7, np.float32))


def test_the_easy_pool_has_the_silhouette_of_the_scorecard():
    pool = easy()
    assert plain_silhouette(representations(pool)["delta_activations"], pool.labels) == pytest.approx(0.831, abs=0.001)


def test_pairs_of_domains_are_held_out_once_each():
    labels = np.repeat(np.arange(5), 3)
    held_out = list(folds(labels))
    assert len(held_out) == 10
    assert {int(each.sum()) for each in held_out} == {6}
    assert sum(held_out).tolist() == [4] * 15


def test_a_clear_pool_is_judged_clear(clear: Embedded):
    family = [each for each in candidates() if each.family == "centered"]
    _, metrics = judge(clear.arrays["x"], clear, family)
    assert metrics["held_out"] > 0.9
    assert metrics["held_out_nearest"] == metrics["new_nearest"] == 1


def test_parameters_are_chosen_without_the_labels_of_what_is_judged(clear: Embedded):
    """Wrong labels in two domains cost only where these are judged: the folds that hold both out choose as before."""
    family = [each for each in candidates() if each.family == "leading"]
    swapped = clear.labels.copy()
    swapped[:8] = np.tile(["a", "b"], 4)
    wrong = replace(clear, labels=swapped)
    inside = ~next(iter(folds(clear.numbers)))
    right_choice, wrong_choice = (choose(family, clear.arrays["x"], pool.labels, inside) for pool in (clear, wrong))
    assert right_choice == wrong_choice
    assert judge(clear.arrays["x"], wrong, family)[1]["held_out"] < 0.6


@pytest.mark.parametrize("candidate", candidates()[::7], ids=lambda each: each.family)
def test_every_family_gives_distances(candidate, clear: Embedded):
    vectors = clear.arrays["x"]
    distance = candidate.distance(vectors, vectors)
    assert distance.shape == (16, 16)
    assert np.allclose(distance, distance.T, atol=1e-5)
    assert (distance >= 0).all()
    assert np.allclose(np.diag(distance), 0)


def test_the_nearest_of_a_lone_stranger_is_wrong(clear: Embedded):
    labels = clear.numbers.copy()
    labels[0] = 1
    found = right(cosine_distance(clear.arrays["x"]), labels)
    assert not found[0]
    assert found[4:].all()


def test_the_shipped_files_are_small():
    assert sum(path.stat().st_size for path in SHIPPED.glob("*.npz")) < 4e6


def test_supervised_and_preferred_are_apart():
    pool, preferred = hard()
    assert not any(label.startswith("prefers-") for label in pool.labels)
    assert len(set(preferred.labels)) == 3


def test_parts_side_by_side_weigh_alike():
    pool = easy()
    both = representations(pool)["last and weighted"]
    first, second = np.split(both, 2, axis=1)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1), rtol=1e-3)
    np.testing.assert_allclose(unit(representations(pool)["delta_activations"]), first, rtol=1e-3, atol=1e-5)
