"""The shipped vectors reproduce the documented shares, and the shares of a small pool can be verified by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.confidence import domain, evaluate, shares
from benchmarks.hard_pool.representations import easy

VECTORS = np.array([[1, 0], [1, 0], [0.8, 0.6], [0, 1]], np.float32)


@pytest.mark.parametrize(("bound", "expected"), [(0.9, (1, 0.5, 0)), (0.7, (2 / 6, 0.75, 0.75)), (0.5, (2 / 8, 1, 1))])
def test_shares_count_neighbors_above_the_bound(bound: float, expected: tuple[float, float, float]):
    assert shares(VECTORS, np.array(["a", "a", "b", "c"]), bound) == pytest.approx(expected)


def test_near_domains_are_one():
    assert [domain(label) for label in ("legal-clauses", "coding", "code-functions")] == ["legal", "code", "code"]


def test_shipped_vectors_reproduce_the_documented_shares():
    right = {(row["feature"], row["bound"]): row["right"] for row in evaluate("demo", [easy()])}
    for feature in ("delta_activations", "delta_layers"):
        assert (right[feature, "formula"], right[feature, "measured"]) == pytest.approx((0.15, 0.94), abs=0.01)
