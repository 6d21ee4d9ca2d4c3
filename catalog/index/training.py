"""Trains the inverted lists of a main segment: the axes of the codes, the number of lists, and the number of lists that
a query must probe to reach the target recall.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import faiss
import numpy as np

from catalog.index.ivf import InvertedLists
from catalog.index.manifest import TunedProbes
from catalog.vectors.reduction import right_singular_vectors

TARGET_RECALL = 0.99
RECALL_MARGIN = 0.005  # the recall of other queries may be lower than that of the holdout by this much
TUNED_KS = (10, 100, 1_000)
HOLDOUT_QUERIES = 400  # at most a fifth of the vectors
MIN_AXES, MAX_AXES = 64, 512
MIN_COMPRESSION = 2  # codes along axes save nothing unless they have this many times fewer coordinates
AXES_SAMPLE = 16_384  # vectors that the axes are computed from
OVERSAMPLING = 32  # extra axes of the randomized decomposition, for accuracy
POWER_ITERATIONS = 2  # of the randomized decomposition
POINTS_PER_LIST = 64  # vectors in the sample of k-means, per list
KMEANS_ITERATIONS = 10
CHUNK_ROWS = 1_024  # the memory of small arrays is reused, while large ones get new pages each time

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedLists:
    """The lists of a main segment, and the number of lists to probe for each k of `TUNED_KS`."""

    lists: InvertedLists
    tuned: tuple[TunedProbes, ...]

    @property
    def reaches_target(self) -> bool:
        return all(probes.recall >= TARGET_RECALL + RECALL_MARGIN for probes in self.tuned)


def train(vectors: np.ndarray, seed: int = 0) -> TrainedLists:
    """Train lists on normalized vectors float32 (n, d), n at least 2, which may be mapped from a file.

    The number of axes is doubled until the candidates that the codes rank highest include the true neighbors. If
    `MAX_AXES` are not enough, all coordinates are kept.
    """
    n = len(vectors)
    generator = np.random.default_rng(seed)
    holdout = np.sort(generator.choice(n, min(HOLDOUT_QUERIES, max(1, n // 5)), replace=False))
    training_rows = np.setdiff1d(np.arange(n), holdout)
    truth = _GroundTruth(vectors, holdout, min(max(TUNED_KS), n - 1))
    for axes in _axes(vectors[_sample(training_rows, AXES_SAMPLE, generator)], generator):
        lists = InvertedLists.untrained(vectors.shape[1], axes, list_count(n), KMEANS_ITERATIONS)
        sample = _sample(training_rows, POINTS_PER_LIST * lists.count, generator)
        lists.train(np.vstack([lists.reduce(vectors[rows]) for rows in _chunks(sample)]))
        for rows in _chunks(np.arange(n)):
            lists.add(vectors[rows[0] : rows[-1] + 1])
        trained = TrainedLists(lists, _tune(lists, truth))
        log.info("%s lists along %s axes: %s", lists.count, lists.axes, trained.tuned)
        if trained.reaches_target:
            break
    return trained


def list_count(n: int) -> int:
    """The number of lists for n vectors. A query reads every centroid (4 bytes per coordinate) and about ten lists (1
    or 2 bytes per coordinate), which is least for about 1.5 to 2 times the square root of n.
    """
    return max(1, min(round(1.5 * math.sqrt(n)), n // 8))


def _sample(rows: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    return np.sort(generator.choice(rows, min(len(rows), count), replace=False))


def _chunks(rows: np.ndarray) -> list[np.ndarray]:
    return np.split(rows, range(CHUNK_ROWS, len(rows), CHUNK_ROWS))


def _axes(sample: np.ndarray, generator: np.random.Generator) -> Iterator[np.ndarray | None]:
    """Yield axes (r, d) to try, twice as many each time, and then None for all coordinates."""
    count = MIN_AXES
    while count <= min(MAX_AXES, sample.shape[1] // MIN_COMPRESSION):
        seed = int(generator.integers(2**32))
        axes = right_singular_vectors(sample, count, seed, oversamples=OVERSAMPLING, iterations=POWER_ITERATIONS)
        yield np.ascontiguousarray(axes)
        count *= 2
    yield None


class _GroundTruth:
    """The rows of the k nearest vectors of each query (q,), by exact search. The queries are rows of `vectors`, and
    none is its own neighbor.
    """

    def __init__(self, vectors: np.ndarray, query_rows: np.ndarray, k: int) -> None:
        self.queries, self.query_rows, self.k = np.ascontiguousarray(vectors[query_rows]), query_rows, k
        self._cosines = np.full((len(query_rows), k), -2, np.float32)
        self._nearest = np.full((len(query_rows), k), -1, np.int64)
        for start in range(0, len(vectors), CHUNK_ROWS):
            self._add_chunk(np.ascontiguousarray(vectors[start : start + CHUNK_ROWS]), start)

    def _add_chunk(self, chunk: np.ndarray, start: int) -> None:
        size = min(self.k + 1, len(chunk))
        cosines, nearest = faiss.knn(self.queries, chunk, size, metric=faiss.METRIC_INNER_PRODUCT)
        nearest = nearest + start
        cosines[nearest == self.query_rows[:, None]] = -3  # the query itself
        cosines, nearest = np.hstack([self._cosines, cosines]), np.hstack([self._nearest, nearest])
        best = np.argsort(-cosines, axis=1, kind="stable")[:, : self.k]
        self._cosines = np.take_along_axis(cosines, best, axis=1)
        self._nearest = np.take_along_axis(nearest, best, axis=1)

    def recall(self, candidates: np.ndarray, k: int) -> float:
        """The share of the k nearest rows that are among the candidate rows (q, m)."""
        hits = sum(np.isin(nearest[:k], row).sum() for nearest, row in zip(self._nearest, candidates, strict=True))
        return float(hits) / (k * len(self.query_rows))


def _tune(lists: InvertedLists, truth: _GroundTruth) -> tuple[TunedProbes, ...]:
    tuned: list[TunedProbes] = []
    reduced = lists.reduce(truth.queries)
    for k in sorted({min(k, truth.k) for k in TUNED_KS}):
        min_probes = tuned[-1].probes if tuned else 1
        tuned.append(_tune_for(k, lists, truth, reduced, min_probes))
    return tuple(tuned)


def _tune_for(k: int, lists: InvertedLists, truth: _GroundTruth, reduced: np.ndarray, min_probes: int) -> TunedProbes:
    """The fewest probes, within an eighth, that reach the target recall; all lists if no number does."""

    def recall(probes: int) -> float:
        return truth.recall(lists.probe(reduced, lists.candidate_count(k + 1), probes), k)

    target, below, probes = TARGET_RECALL + RECALL_MARGIN, min_probes - 1, min_probes
    if (best := recall(lists.count)) < target:
        return TunedProbes(k, lists.count, best)
    while probes < lists.count and recall(probes) < target:
        below, probes = probes, min(2 * probes, lists.count)
    while probes - below > max(1, probes // 8):
        middle = (probes + below) // 2
        if recall(middle) < target:
            below = middle
        else:
            probes = middle
    return TunedProbes(k, probes, recall(probes))
