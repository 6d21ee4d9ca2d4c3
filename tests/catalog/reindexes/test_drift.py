import numpy as np
import pytest

from catalog.reindexes.drift import drift, nearest

POINTS = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)


def test_the_same_vectors_do_not_drift():
    found = drift(POINTS, POINTS)
    assert (found.overlap.mean, found.nearest_changed, found.most) == (1, 0, [])
    assert found.cosine.mean == pytest.approx(1)
    assert found.histogram == [0] * 9 + [60]


def test_a_rotation_keeps_neighbours_and_not_cosines():
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))
    found = drift(POINTS, POINTS @ turn)
    assert found.overlap.mean == 1
    assert found.cosine.mean < 0.9


def test_norms_are_told_as_ratios():
    assert drift(POINTS, 2 * POINTS).norm_ratio.percentiles == pytest.approx([2] * 5)


def test_vectors_of_other_dimensions_have_neighbours_to_compare_and_no_cosine():
    wider = np.hstack([POINTS, np.zeros((60, 4), np.float32)])
    found = drift(POINTS, wider)
    assert (found.cosine, found.overlap.mean) == (None, 1)


def test_the_model_that_moved_most_is_named_first():
    moved = POINTS.copy()
    moved[7] = -moved[7]
    found = drift(POINTS, moved)
    assert found.most[0] == 7
    assert found.overlaps[7] == min(found.overlaps)


def test_unrelated_vectors_keep_what_chance_keeps():
    found = drift(POINTS, np.random.default_rng(1).normal(size=(60, 8)), k=10)
    assert found.overlap.mean == pytest.approx(10 / 59, abs=0.1)


@pytest.mark.parametrize("models", [0, 1, 2])
def test_too_few_models_are_not_compared(models: int):
    assert drift(POINTS[:models], POINTS[:models]) is None


def test_there_are_fewer_neighbours_among_few():
    assert drift(POINTS[:5], POINTS[:5]).k == 3


def test_nearest_is_by_cosine_and_leaves_itself_out():
    points = np.array([[1, 0], [10, 1], [0, 1]], np.float32)
    assert nearest(points, 1).ravel().tolist() == [1, 0, 1]
