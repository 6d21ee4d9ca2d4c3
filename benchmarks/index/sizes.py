"""Search at one size: latency and recall compared with an exact scan, filters, and loading."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import faiss
import numpy as np

from benchmarks.index.catalogs import SPACE_ID, Catalog
from benchmarks.index.data import QUERIES, Data
from benchmarks.index.measuring import K, Times, one_thread, recall
from catalog.index.filters import Filters
from catalog.index.space_index import SpaceIndex
from catalog.vectors.repository import stream as vector_stream

SCANS = 100  # timed exact scans
FILTERS = {"1%": Filters(tags=("some",)), "0.1%": Filters(tags=("rare",))}


def measure(catalog: Catalog) -> dict[str, Any]:
    """One row of the table."""
    data = catalog.data
    report: dict[str, Any] = {"n": data.n, "dimension": data.d, "stream_mb_per_s": _stream(catalog)}
    report |= catalog.build()
    start = time.perf_counter()
    with catalog.follower() as follower:
        report["open_seconds"] = round(time.perf_counter() - start, 3)
        index = follower.index(SPACE_ID, data.d)
        report["index_memory_mb"] = round(index.memory / 2**20, 1)
        with one_thread():
            report |= _search(index, data)
            report["filters"] = {
                name: _filtered(index, follower.allowed(filters), data) for name, filters in FILTERS.items()
            }
    return report


def _stream(catalog: Catalog) -> float:
    """The rate at which a build reads vectors from Postgres, in MB/s."""
    start, total = time.perf_counter(), 0
    with catalog.database.transaction() as session:
        for _, block in vector_stream.stream(session, SPACE_ID, catalog.data.d):
            total += block.nbytes
    return round(total / 1e6 / (time.perf_counter() - start), 1)


def _search(index: SpaceIndex, data: Data) -> dict[str, Any]:
    flat = faiss.IndexFlatIP(data.d)
    flat.add(data.vectors)
    indexed, scan, two_threads = Times(), Times(), Times()
    results, error = [], 0.0
    for query in data.queries[:20]:
        index.search(query, K)  # warm-up
    for number, query in enumerate(data.queries):
        hits = indexed.measure(partial(index.search, query, K))
        results.append(hits.model_ids - 1)
        exact = data.vectors[results[-1]].astype(np.float64) @ query
        error = max(error, float(np.abs(hits.cosines - exact).max()))
        if number < SCANS:
            scan.measure(partial(flat.search, query[None], K))
    faiss.omp_set_num_threads(2)
    for query in data.queries[:SCANS]:
        two_threads.measure(partial(flat.search, query[None], K))
    faiss.omp_set_num_threads(1)
    best = min(scan, two_threads, key=lambda times: times.ms(0.5))
    return {
        **indexed.summary(),
        "recall_at_10": recall(results, data.truth),
        "largest_cosine_error": error,
        "exact_scan": best.summary(),
        "speedup_over_exact_scan": round(best.ms(0.5) / indexed.ms(0.5), 1),
        "k_100": _for_k(index, data, 100),
        "k_1000": _for_k(index, data, 1_000),
    }


def _for_k(index: SpaceIndex, data: Data, k: int) -> dict[str, float]:
    times = Times()
    for query in data.queries[:100]:
        times.measure(partial(index.search, query, k))
    return times.summary()


def _filtered(index: SpaceIndex, allowed: np.ndarray, data: Data) -> dict[str, Any]:
    """Filtered searches, alternating with unfiltered ones."""
    unfiltered, filtered = Times(), Times()
    results = []
    for query in data.queries:
        unfiltered.measure(partial(index.search, query, K))
        results.append(filtered.measure(partial(index.search, query, K, allowed=allowed)).model_ids - 1)
    passing = np.flatnonzero(allowed[1 : data.n + 1])
    count = max(min(K, len(passing)), 1)
    truth = passing[faiss.knn(data.queries, data.vectors[passing], count, metric=faiss.METRIC_INNER_PRODUCT)[1]]
    return {
        **filtered.summary(),
        "kept": len(passing),
        "fewest_results": min(map(len, results)),
        "recall_at_10": recall(results, truth),
        "relative_latency": round(filtered.ms(0.5) / unfiltered.ms(0.5), 2),
    }


assert QUERIES >= SCANS
