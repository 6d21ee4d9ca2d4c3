"""Times and shares, the same way for every contender."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import faiss
import numpy as np

K = 10


@dataclass
class Times:
    """Seconds of single calls."""

    seconds: list[float] = field(default_factory=list)

    def measure(self, call: Callable[[], np.ndarray]) -> np.ndarray:
        start = time.perf_counter()
        found = call()
        self.seconds.append(time.perf_counter() - start)
        return found

    def ms(self, share: float) -> float:
        """The quantile at that share, in milliseconds."""
        return round(1e3 * float(np.quantile(self.seconds, share)), 3)

    def summary(self) -> dict[str, float]:
        return {"p50_ms": self.ms(0.5), "p99_ms": self.ms(0.99)}


def recall(found: Iterable[np.ndarray], truth: np.ndarray) -> float:
    """The share of the true nearest (q, k) that was found."""
    return round(float(np.mean([np.isin(wanted, each).mean() for each, wanted in zip(found, truth, strict=True)])), 4)


@contextmanager
def one_thread() -> Iterator[None]:
    """FAISS in this thread alone: one query at a time gains nothing from more."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    gc.collect()
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
