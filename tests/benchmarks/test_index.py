"""The index benchmark on a small catalog."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks.index import sizes
from benchmarks.index.__main__ import TARGET_SIZE, check_targets
from benchmarks.index.catalogs import Catalog, open_catalog
from benchmarks.index.data import Data
from benchmarks.index.measuring import Times, recall


@pytest.fixture(scope="module")
def catalog() -> Iterator[Catalog]:
    with open_catalog(Data(2_000, 64)) as catalog:
        yield catalog


def test_exact_index_finds_all_neighbors(catalog: Catalog):
    row = sizes.measure(catalog)
    assert row["kind"] == "exact, in memory"
    assert row["recall_at_10"] == 1
    assert row["largest_cosine_error"] < 1e-6
    assert row["filters"]["1%"]["kept"] == 20
    assert row["filters"]["1%"]["fewest_results"] == 10
    assert row["filters"]["0.1%"]["fewest_results"] == row["filters"]["0.1%"]["kept"] == 2
    assert row["stream_mb_per_s"] > 0


def test_queries_are_not_among_the_vectors():
    data = Data(500, 32)
    assert (data.vectors @ data.queries.T).max() < 1 - 1e-6
    np.testing.assert_allclose(np.linalg.norm(data.vectors, axis=1), 1, rtol=1e-5)


def test_truth_matches_an_exact_search():
    data = Data(500, 32)
    expected = np.argsort(-(data.queries @ data.vectors.T), axis=1)[:, :10]
    assert recall(data.truth, expected) == 1


def test_recall_is_the_share_of_true_neighbors_found():
    assert recall([np.array([1, 2]), np.array([9, 3])], np.array([[1, 2], [3, 4]])) == 0.75


def test_times_are_quantiles_in_milliseconds():
    times = Times([0.001, 0.002, 0.003])
    assert times.summary() == {"p50_ms": 2.0, "p99_ms": 2.98}


GOOD = {
    "sizes": [
        {
            "n": TARGET_SIZE[0],
            "dimension": TARGET_SIZE[1],
            "recall_at_10": 0.992,
            "speedup_over_exact_scan": 50,
            "share_of_float32_bytes": 0.02,
            "largest_cosine_error": 1e-6,
            "stream_mb_per_s": 500,
            "filters": {"1%": {"relative_latency": 1.4}, "0.1%": {"fewest_results": 10}},
        }
    ],
    "freshness": {"p99_s": 0.3},
    "rebuild": {"relative_p99": 1.5},
    "startup": {"seconds": [1, 2]},
}


def test_targets_depend_on_the_measurements():
    assert all(met for *_, met in check_targets(GOOD))
    bad = copy.deepcopy(GOOD)
    bad["sizes"][0] |= {"recall_at_10": 0.98, "speedup_over_exact_scan": 39}
    bad["rebuild"]["relative_p99"] = 2.1
    bad["startup"]["seconds"] = [1, 3.1]
    missed = {name for name, *_, met in check_targets(bad) if not met}
    assert missed == {
        "recall_at_10", "speedup_over_exact_scan", "rebuild_relative_p99", "startup_seconds",
    }  # fmt: skip


def test_run_without_the_target_size_has_no_targets():
    assert list(check_targets({"sizes": []})) == []
