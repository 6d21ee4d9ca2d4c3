"""The index's benchmark runs, on a small catalog, and its figures are what they say."""

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
    with open_catalog(Data(2_000, 64)) as made:
        yield made


def test_an_exact_index_finds_all(catalog: Catalog):
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


def test_the_truth_is_what_an_exact_search_finds():
    data = Data(500, 32)
    expected = np.argsort(-(data.queries @ data.vectors.T), axis=1)[:, :10]
    assert recall(data.truth, expected) == 1


def test_recall_counts_the_share_that_was_found():
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
            "times_as_fast_as_exact_scan": 50,
            "share_of_float32_bytes": 0.02,
            "largest_cosine_error": 1e-6,
            "stream_mb_per_s": 500,
            "filters": {"1%": {"of_the_unfiltered_latency": 1.4}, "0.1%": {"fewest_results": 10}},
        }
    ],
    "freshness": {"p99_s": 0.3},
    "rebuild": {"p99_of_the_quiet_one": 1.5},
    "starting": {"seconds": [1, 2]},
}


def test_targets_are_met_or_missed_by_the_figures():
    assert all(met for *_, met in check_targets(GOOD))
    bad = copy.deepcopy(GOOD)
    bad["sizes"][0] |= {"recall_at_10": 0.98, "times_as_fast_as_exact_scan": 39}
    bad["rebuild"]["p99_of_the_quiet_one"] = 2.1
    bad["starting"]["seconds"] = [1, 3.1]
    missed = {name for name, *_, met in check_targets(bad) if not met}
    assert missed == {
        "recall_at_10", "times_as_fast_as_exact_scan", "p99_during_a_rebuild_of_the_quiet_one", "start_seconds",
    }  # fmt: skip


def test_nothing_is_promised_of_a_run_without_the_size_in_use():
    assert list(check_targets({"sizes": []})) == []
