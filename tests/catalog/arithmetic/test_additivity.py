from __future__ import annotations

import numpy as np
import pytest

from catalog.arithmetic.additivity import residual


def test_equal_vectors_have_no_residual():
    result = residual(np.array([3.0, 4.0]), np.array([3.0, 4.0]))
    assert (result.cosine, result.relative, result.scale) == pytest.approx((1, 0, 1))
    assert result.min_relative == pytest.approx(0, abs=1e-7)


def test_min_relative_is_the_residual_at_the_best_scale():
    rng = np.random.default_rng(0)
    vector, total = rng.normal(size=20), rng.normal(size=20) + 0.5
    result = residual(vector, total)

    def residual_at(scale: float) -> float:
        return float(np.linalg.norm(vector - scale * total) / np.linalg.norm(vector))

    assert result.relative == pytest.approx(residual_at(1))
    assert result.min_relative == pytest.approx(residual_at(result.scale))
    assert result.min_relative < min(residual_at(result.scale + step) for step in (-0.01, 0.01))


def test_sum_of_twice_the_length_has_relative_residual_one():
    result = residual(np.array([0.0, 2.0]), np.array([0.0, 4.0]))
    assert (result.cosine, result.relative, result.min_relative, result.scale) == pytest.approx((1, 1, 0, 0.5))
