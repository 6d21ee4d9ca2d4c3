import numpy as np
import pytest

from catalog.reindexes.drift import measure_drift, nearest_neighbors

POINTS = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)


def test_identical_vectors_do_not_drift():
    drift = measure_drift(POINTS, POINTS)
    assert (drift.overlap.mean, drift.nearest_changed, drift.most_changed) == (1, 0, [])
    assert drift.cosine.mean == pytest.approx(1)
    assert drift.histogram == [0] * 9 + [60]


def test_rotation_keeps_neighbors_but_not_cosines():
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))
    drift = measure_drift(POINTS, POINTS @ rotation)
    assert drift.overlap.mean == 1
    assert drift.cosine.mean < 0.9


def test_norm_ratio_is_new_norm_to_old_norm():
    assert measure_drift(POINTS, 2 * POINTS).norm_ratio.percentiles == pytest.approx([2] * 5)


def test_vectors_of_different_dimensions_are_compared_by_neighbors_only():
    wider = np.hstack([POINTS, np.zeros((60, 4), np.float32)])
    drift = measure_drift(POINTS, wider)
    assert (drift.cosine, drift.overlap.mean) == (None, 1)


def test_model_with_the_lowest_overlap_comes_first():
    moved = POINTS.copy()
    moved[7] = -moved[7]
    drift = measure_drift(POINTS, moved)
    assert drift.most_changed[0] == 7
    assert drift.overlaps[7] == min(drift.overlaps)


def test_unrelated_vectors_overlap_as_much_as_chance():
    drift = measure_drift(POINTS, np.random.default_rng(1).normal(size=(60, 8)), k=10)
    assert drift.overlap.mean == pytest.approx(10 / 59, abs=0.1)


@pytest.mark.parametrize("models", [0, 1, 2])
def test_fewer_than_three_models_are_not_compared(models: int):
    assert measure_drift(POINTS[:models], POINTS[:models]) is None


def test_k_is_smaller_among_few_models():
    assert measure_drift(POINTS[:5], POINTS[:5]).k == 3


def test_nearest_neighbors_are_by_cosine_and_exclude_the_model_itself():
    points = np.array([[1, 0], [10, 1], [0, 1]], np.float32)
    assert nearest_neighbors(points, 1).ravel().tolist() == [1, 0, 1]
