"""From vectors to inverted lists: how many, where they lie, and how many of them a query has to probe."""

from __future__ import annotations

import math
from dataclasses import dataclass

import faiss
import numpy as np

from catalog.index.files import Tuned
from catalog.index.mapped import candidates, probe

WANTED_RECALL = 0.99
MARGIN = 0.003  # what the queries held out here and other ones may differ by
TUNED_FOR = (10, 100, 1_000)  # values of k
HELD_OUT = 400  # queries; a fifth of the vectors where there are fewer
POINTS_PER_LIST = 64  # that k-means sees
ITERATIONS = 10
CHUNK = 8_192  # rows taken at once


@dataclass(frozen=True)
class Built:
    """The lists of a main segment, and how many of them a query is to probe."""

    lists: faiss.IndexIVFScalarQuantizer
    tuned: tuple[Tuned, ...]


def build(vectors: np.ndarray, seed: int = 0) -> Built:
    """From normalised vectors float32 (n, d), n at least 2; they may be mapped from a file."""
    n = len(vectors)
    generator = np.random.default_rng(seed)
    held_out = np.sort(generator.choice(n, min(HELD_OUT, max(1, n // 5)), replace=False))
    lists = _trained(vectors, held_out, generator)
    nearest = _Nearest(vectors[held_out], held_out, min(max(TUNED_FOR), n - 1))
    for start in range(0, n, CHUNK):
        chunk = np.ascontiguousarray(vectors[start : start + CHUNK])
        lists.add(chunk)
        nearest.look_at(chunk, start)
    return Built(lists, _tuned(lists, nearest))


def list_count(n: int) -> int:
    """A query reads every centroid (4 bytes an entry) and about eight lists (1 byte an entry): the sum is least for
    about 1.4 times the root of n.
    """
    return max(1, min(round(1.5 * math.sqrt(n)), n // 8))


def _trained(
    vectors: np.ndarray, held_out: np.ndarray, generator: np.random.Generator
) -> faiss.IndexIVFScalarQuantizer:
    n, d = vectors.shape
    count = list_count(n)
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(d), d, count, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT, True
    )
    index.cp.niter, index.cp.seed = ITERATIONS, 1
    index.cp.min_points_per_centroid = 1
    others = np.setdiff1d(np.arange(n), held_out)
    sample = np.sort(generator.choice(others, min(len(others), POINTS_PER_LIST * count), replace=False))
    index.train(np.ascontiguousarray(vectors[sample]))
    return index


class _Nearest:
    """The k nearest of each query (q, d), itself left out, by exact search over chunks."""

    def __init__(self, queries: np.ndarray, rows: np.ndarray, k: int) -> None:
        self.queries, self.rows, self.k = np.ascontiguousarray(queries), rows, k
        self._cosines = np.full((len(rows), k), -2, np.float32)
        self.found = np.full((len(rows), k), -1, np.int64)

    def look_at(self, chunk: np.ndarray, start: int) -> None:
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


def _tuned(lists: faiss.IndexIVF, nearest: _Nearest) -> tuple[Tuned, ...]:
    found: list[Tuned] = []
    for k in sorted({min(k, nearest.k) for k in TUNED_FOR}):
        floor = found[-1].probes if found else 1
        found.append(_tuned_for(k, lists, nearest, floor))
    return tuple(found)


def _tuned_for(k: int, lists: faiss.IndexIVF, nearest: _Nearest, floor: int) -> Tuned:
    """The fewest probes, to an eighth, that reach the recall wanted; all lists where none does."""

    def recall(probes: int) -> float:
        return nearest.recall(probe(lists, nearest.queries, candidates(k + 1), probes), k)

    wanted, below, probes = WANTED_RECALL + MARGIN, floor - 1, floor
    while probes < lists.nlist and recall(probes) < wanted:
        below, probes = probes, min(2 * probes, lists.nlist)
    while probes - below > max(1, probes // 8):
        middle = (probes + below) // 2
        if recall(middle) < wanted:
            below = middle
        else:
            probes = middle
    return Tuned(k, probes, recall(probes))
