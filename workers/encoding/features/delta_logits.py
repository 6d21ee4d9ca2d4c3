"""How far the logits behind the last token move, mean over probes; wide ones through a count sketch.

Count sketch: Charikar, Chen, Farach-Colton 2002, https://doi.org/10.1007/3-540-45465-9_59. Every coordinate is added to
one of 4,096 with a sign of its own, both from a hash, so that inner products, and with them cosines, are kept in
expectation.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from workers.encoding.features.base import Feature
from workers.encoding.trace import Trace

WIDTH = 4096
SEED = 20_250_904  # part of the contract: another one makes another space


class DeltaLogits(Feature):
    name = "delta_logits"
    at_layer = False
    through_head = True

    def table(self, trace: Trace) -> Tensor:
        return sketch(trace.logits(trace.plan.last))  # (N, min(V, 4096))


def sketch(rows: Tensor) -> Tensor:
    """(N, V) -> (N, 4096); rows that are no wider stay as they are."""
    if rows.shape[1] <= WIDTH:
        return rows
    place, sign = (torch.from_numpy(each).to(rows.device) for each in hashes(rows.shape[1]))
    return torch.zeros(len(rows), WIDTH, device=rows.device).index_add_(1, place, rows * sign)


def hashes(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Places below 4,096 (int64) and signs (float32) of the first `count` coordinates.

    SplitMix64 (https://doi.org/10.1145/2660193.2660195) of the coordinate's number: the same on every machine and in
    every version of every library.
    """
    step = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(SEED)
    step = (step ^ (step >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    step = (step ^ (step >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    step ^= step >> np.uint64(31)
    sign = 1.0 - 2.0 * (step >> np.uint64(63)).astype(np.float32)
    return (step % np.uint64(WIDTH)).astype(np.int64), sign
