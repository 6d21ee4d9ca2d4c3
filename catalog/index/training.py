"""From vectors to inverted lists: along which axes, how many lists, and how many of them a query has to probe."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import faiss
import numpy as np

from catalog.index.ivf import Lists
from catalog.index.manifest import Tuned
from catalog.vectors.reduction import principal_axes

WANTED_RECALL = 0.99
MARGIN = 0.005  # what the queries held out here and other ones may differ by
TUNED_FOR = (10, 100, 1_000)  # values of k
HELD_OUT = 400  # queries; a fifth of the vectors where there are fewer
FEWEST_AXES, MOST_AXES = 64, 512
LEAST_SAVED = 2  # axes are no gain unless there are so many times fewer than coordinates
AXES_SAMPLE = 16_384  # vectors that the axes are found from
OVERSAMPLED = 32  # axes more than wanted, so that those wanted are right
POWERS = 2  # power iterations of the decomposition
POINTS_PER_LIST = 64  # that k-means sees
ITERATIONS = 10
CHUNK = 1_024  # rows taken at once: arrays so small are used again, where large ones are new pages each time

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Built:
    """The lists of a main segment, and how many of them a query is to probe."""

    lists: Lists
    tuned: tuple[Tuned, ...]

    @property
    def good(self) -> bool:
        return all(each.recall >= WANTED_RECALL + MARGIN for each in self.tuned)


def build(vectors: np.ndarray, seed: int = 0) -> Built:
    """From normalised vectors float32 (n, d), n at least 2; they may be mapped from a file.

    Axes are doubled until the candidates that their codes rank highest hold the neighbours that were asked for; where
    that takes too many, all coordinates are kept.
    """
    n = len(vectors)
    generator = np.random.default_rng(seed)
    held_out = np.sort(generator.choice(n, min(HELD_OUT, max(1, n // 5)), replace=False))
    others = np.setdiff1d(np.arange(n), held_out)
    nearest = _Nearest(vectors, held_out, min(max(TUNED_FOR), n - 1))
    for axes in _axes(vectors[_some(others, AXES_SAMPLE, generator)], generator):
        lists = Lists.untrained(vectors.shape[1], axes, list_count(n), ITERATIONS)
        sample = _some(others, POINTS_PER_LIST * lists.count, generator)
        lists.train(np.vstack([lists.reduce(vectors[rows]) for rows in _chunks(sample)]))
        for rows in _chunks(np.arange(n)):
            lists.add(vectors[rows[0] : rows[-1] + 1])
        built = Built(lists, _tuned(lists, nearest))
        log.info("%s lists along %s axes: %s", lists.count, lists.axes, built.tuned)
        if built.good:
            break
    return built


def list_count(n: int) -> int:
    """A query reads every centroid (4 bytes an entry) and some ten lists (2 bytes an entry or 1): the sum is least for
    about 1.5 to 2 times the root of n.
    """
    return max(1, min(round(1.5 * math.sqrt(n)), n // 8))


def _some(rows: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    return np.sort(generator.choice(rows, min(len(rows), count), replace=False))


def _chunks(rows: np.ndarray) -> list[np.ndarray]:
    return np.split(rows, range(CHUNK, len(rows), CHUNK))


def _axes(sample: np.ndarray, generator: np.random.Generator) -> Iterator[np.ndarray | None]:
    """Axes (r, d) to try, more and more of them; at last None, for all coordinates."""
    count = FEWEST_AXES
    while count <= min(MOST_AXES, sample.shape[1] // LEAST_SAVED):
        seed = int(generator.integers(2**32))
        axes = principal_axes(sample, count, seed, oversampled=OVERSAMPLED, iterations=POWERS)
        yield np.ascontiguousarray(axes)
        count *= 2
    yield None


class _Nearest:
    """The k nearest vectors of each of those rows (q,), itself left out, by exact search."""

    def __init__(self, vectors: np.ndarray, rows: np.ndarray, k: int) -> None:
        self.queries, self.rows, self.k = np.ascontiguousarray(vectors[rows]), rows, k
        self._cosines = np.full((len(rows), k), -2, np.float32)
        self.found = np.full((len(rows), k), -1, np.int64)
        for start in range(0, len(vectors), CHUNK):
            self._look_at(np.ascontiguousarray(vectors[start : start + CHUNK]), start)

    def _look_at(self, chunk: np.ndarray, start: int) -> None:
        cosines, found = faiss.knn(self.queries, chunk, min(self.k + 1, len(chunk)), metric=faiss.METRIC_INNER_PRODUCT)
        found = found + start
        cosines[found == self.rows[:, None]] = -3  # the query itself
        cosines, found = np.hstack([self._cosines, cosines]), np.hstack([self.found, found])
        best = np.argsort(-cosines, axis=1, kind="stable")[:, : self.k]
        self._cosines = np.take_along_axis(cosines, best, axis=1)
        self.found = np.take_along_axis(found, best, axis=1)

    def recall(self, found: np.ndarray, k: int) -> float:
        """The share of the k nearest that is among the candidates (q, m), which are then ranked by their cosines."""
        hits = sum(np.isin(truth[:k], each).sum() for truth, each in zip(self.found, found, strict=True))
        return float(hits) / (k * len(self.rows))


def _tuned(lists: Lists, nearest: _Nearest) -> tuple[Tuned, ...]:
    found: list[Tuned] = []
    reduced = lists.reduce(nearest.queries)
    for k in sorted({min(k, nearest.k) for k in TUNED_FOR}):
        floor = found[-1].probes if found else 1
        found.append(_tuned_for(k, lists, nearest, reduced, floor))
    return tuple(found)


def _tuned_for(k: int, lists: Lists, nearest: _Nearest, reduced: np.ndarray, floor: int) -> Tuned:
    """The fewest probes, to an eighth, that reach the recall wanted; all lists where none does."""

    def recall(probes: int) -> float:
        return nearest.recall(lists.probe(reduced, lists.candidates(k + 1), probes), k)

    wanted, below, probes = WANTED_RECALL + MARGIN, floor - 1, floor
    if (most := recall(lists.count)) < wanted:
        return Tuned(k, lists.count, most)
    while probes < lists.count and recall(probes) < wanted:
        below, probes = probes, min(2 * probes, lists.count)
    while probes - below > max(1, probes // 8):
        middle = (probes + below) // 2
        if recall(middle) < wanted:
            below = middle
        else:
            probes = middle
    return Tuned(k, probes, recall(probes))
