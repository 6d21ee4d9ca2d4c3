"""The shift of the logits after the last token, mean over probes; a count sketch reduces large vocabularies.

Count sketch: Charikar, Chen, Farach-Colton 2002, https://doi.org/10.1007/3-540-45465-9_59. Every coordinate is added to
one of 4,096 buckets with a sign, both from a hash, which preserves inner products, and thus cosines, in expectation.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from workers.encoding.features.base import Feature
from workers.encoding.trace import Trace

SKETCH_WIDTH = 4096
SKETCH_SEED = 20_250_904  # part of the contract: another seed makes another space


class DeltaLogits(Feature):
    name = "delta_logits"
    at_layer = False
    through_head = True

    def table(self, trace: Trace) -> Tensor:
        return sketch(trace.logits(trace.plan.last))  # (N, min(V, 4096))


def sketch(rows: Tensor) -> Tensor:
    """(N, V) -> (N, 4096); rows of at most 4096 columns are returned unchanged."""
    if rows.shape[1] <= SKETCH_WIDTH:
        return rows
    bucket, sign = (torch.from_numpy(array).to(rows.device) for array in hashes(rows.shape[1]))
    return torch.zeros(len(rows), SKETCH_WIDTH, device=rows.device).index_add_(1, bucket, rows * sign)


def hashes(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Buckets below 4,096 (int64) and signs (float32) of the first `count` coordinates.

    SplitMix64 (https://doi.org/10.1145/2660193.2660195) of the coordinate's index: the same on every machine and with
    every library version.
    """
    state = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(SKETCH_SEED)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    sign = 1.0 - 2.0 * (state >> np.uint64(63)).astype(np.float32)
    return (state % np.uint64(SKETCH_WIDTH)).astype(np.int64), sign
