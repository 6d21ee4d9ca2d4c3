"""Timing and recall, computed in the same way for every library."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import faiss
import numpy as np

K = 10
T = TypeVar("T")


@dataclass
class Times:
    """The durations of single calls in seconds."""

    seconds: list[float] = field(default_factory=list)

    def measure(self, call: Callable[[], T]) -> T:
        """Call and time a function; returns its result."""
        start = time.perf_counter()
        result = call()
        self.seconds.append(time.perf_counter() - start)
        return result

    def ms(self, share: float) -> float:
        """The quantile at `share` in milliseconds."""
        return round(1e3 * float(np.quantile(self.seconds, share)), 3)

    def summary(self) -> dict[str, float]:
        return {"p50_ms": self.ms(0.5), "p99_ms": self.ms(0.99)}


def recall(results: Iterable[np.ndarray], truth: np.ndarray) -> float:
    """The share of the true nearest neighbors (q, k) that is among the results."""
    shares = [np.isin(expected, rows).mean() for rows, expected in zip(results, truth, strict=True)]
    return round(float(np.mean(shares)), 4)


@contextmanager
def one_thread() -> Iterator[None]:
    """Restrict FAISS to one thread: more threads do not speed up a single query."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    gc.collect()
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
