from __future__ import annotations

import numpy as np
import pytest

from catalog.vectors.numeric import normalize


def test_normalized_rows_have_length_1():
    rows = np.random.default_rng(0).standard_normal((20, 7)).astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(normalize(rows), axis=1), 1, rtol=1e-6)


def test_rows_of_zeros_stay_zero():
    assert normalize(np.array([[0, 0], [3, 4]], np.float32)).tolist() == [[0, 0], [np.float32(0.6), np.float32(0.8)]]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_normalize_keeps_the_precision_of_its_input(kind: type[np.floating]):
    assert normalize(np.ones((2, 3), kind)).dtype == kind


def test_empty_input_stays_empty():
    assert normalize(np.empty((0, 3), np.float32)).shape == (0, 3)
