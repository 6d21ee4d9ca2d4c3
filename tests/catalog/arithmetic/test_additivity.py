from __future__ import annotations

import numpy as np
import pytest

from catalog.arithmetic.additivity import residual


def test_a_vector_that_is_the_sum_leaves_nothing():
    found = residual(np.array([3.0, 4.0]), np.array([3.0, 4.0]))
    assert (found.cosine, found.relative, found.scale) == pytest.approx((1, 0, 1))
    assert found.least == pytest.approx(0, abs=1e-7)


def test_the_least_residual_is_that_of_the_best_scale():
    rng = np.random.default_rng(0)
    vector, total = rng.normal(size=20), rng.normal(size=20) + 0.5
    found = residual(vector, total)

    def left(scale: float) -> float:
        return float(np.linalg.norm(vector - scale * total) / np.linalg.norm(vector))

    assert found.relative == pytest.approx(left(1))
    assert found.least == pytest.approx(left(found.scale))
    assert found.least < min(left(found.scale + step) for step in (-0.01, 0.01))


def test_a_sum_of_the_right_direction_and_twice_the_length_is_off_by_one_length():
    found = residual(np.array([0.0, 2.0]), np.array([0.0, 4.0]))
    assert (found.cosine, found.relative, found.least, found.scale) == pytest.approx((1, 1, 0, 0.5))
