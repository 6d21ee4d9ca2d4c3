"""Search at one size: latency and recall beside an exact scan, filters, loading."""

from __future__ import annotations

import time
from typing import Any

import faiss
import numpy as np

from benchmarks.index.catalogs import SPACE_ID, Catalog
from benchmarks.index.data import QUERIES, Data
from benchmarks.index.measuring import K, Times, one_thread, recall
from catalog.index.filters import Filters
from catalog.index.space_index import SpaceIndex
from catalog.vectors.repository import stream as vector_stream

SCANS = 100  # exact scans that are timed
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
    """MB of vectors a second that a build reads out of Postgres."""
    start, total = time.perf_counter(), 0
    with catalog.database.transaction() as session:
        for _, block in vector_stream.stream(session, SPACE_ID, catalog.data.d):
            total += block.nbytes
    return round(total / 1e6 / (time.perf_counter() - start), 1)


def _search(index: SpaceIndex, data: Data) -> dict[str, Any]:
    flat = faiss.IndexFlatIP(data.d)
    flat.add(data.vectors)
    ours, scan, both_cores = Times(), Times(), Times()
    found, error = [], 0.0
    for query in data.queries[:20]:
        index.search(query, K)  # warm
    for number, query in enumerate(data.queries):
        hits = []
        found.append(ours.measure(lambda query=query, hits=hits: _append_hits(hits, index.search(query, K))) - 1)
        exact = data.vectors[found[-1]].astype(np.float64) @ query
        error = max(error, float(np.abs(hits[0].cosines - exact).max()))
        if number < SCANS:
            scan.measure(lambda query=query: flat.search(query[None], K)[1])
    faiss.omp_set_num_threads(2)
    for query in data.queries[:SCANS]:
        both_cores.measure(lambda query=query: flat.search(query[None], K)[1])
    faiss.omp_set_num_threads(1)
    best = min(scan, both_cores, key=lambda each: each.ms(0.5))
    return {
        **ours.summary(),
        "recall_at_10": recall(found, data.truth),
        "largest_cosine_error": error,
        "exact_scan": best.summary(),
        "times_as_fast_as_exact_scan": round(best.ms(0.5) / ours.ms(0.5), 1),
        "k_100": _for_k(index, data, 100),
        "k_1000": _for_k(index, data, 1_000),
    }


def _append_hits(hits: list[Any], found: Any) -> np.ndarray:
    hits.append(found)
    return found.model_ids


def _for_k(index: SpaceIndex, data: Data, k: int) -> dict[str, float]:
    times = Times()
    for query in data.queries[:100]:
        times.measure(lambda query=query: index.search(query, k).model_ids)
    return times.summary()


def _filtered(index: SpaceIndex, allowed: np.ndarray, data: Data) -> dict[str, Any]:
    """In turns with searches without the filter."""
    plain, filtered = Times(), Times()
    found = []
    for query in data.queries:
        plain.measure(lambda query=query: index.search(query, K).model_ids)
        found.append(filtered.measure(lambda query=query: index.search(query, K, allowed=allowed).model_ids) - 1)
    passing = np.flatnonzero(allowed[1 : data.n + 1])
    wanted = min(K, len(passing))
    truth = passing[
        faiss.knn(data.queries, data.vectors[passing], max(wanted, 1), metric=faiss.METRIC_INNER_PRODUCT)[1]
    ]
    return {
        **filtered.summary(),
        "kept": len(passing),
        "fewest_results": min(map(len, found)),
        "recall_at_10": recall(found, truth),
        "of_the_unfiltered_latency": round(filtered.ms(0.5) / plain.ms(0.5), 2),
    }


assert QUERIES >= SCANS
