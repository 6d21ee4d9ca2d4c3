"""Baseline: a binary mask of the largest weight changes (Localize-and-Stitch, arXiv 2408.13656).

This is the paper's mask without data: the top share, by magnitude, of the task vector (tuned minus base weights). The
task vector is taken from the merged weights of the headless model, so adapters of every kind and rank, and full
fine-tunes, are comparable. The share refers to the weights that the model changed. Masks are stored as indices, and
their intersections are exact.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from torch import Tensor

from workers.evaluation.pool import Pool, Progress
from workers.evaluation.representations.base import EvaluationContext, Masks, PoolVectors, Representation
from workers.evaluation.running import weight_changes


class SalientMask(Representation):
    name = "salient_mask"

    def compute(self, pool: Pool, context: EvaluationContext, progress: Progress) -> PoolVectors:
        started = time.monotonic()
        starts, total = {}, 0
        for name, parameter in context.base.model.named_parameters():
            starts[name] = total
            total += parameter.numel()
        touched: set[str] = set()
        masks = []
        for number, finetune in enumerate(pool.finetunes()):
            progress(self.name, number, len(pool))
            changed = sum(lora.a.shape[1] * lora.b.shape[0] for lora in finetune.modules.values())
            limit = max(1, round(context.mask_share * (changed if finetune.path == "lora" else total)))
            changes = weight_changes(finetune, context.base, context.guard)
            mask, names = largest_changes(changes, starts, context.mask_share, limit)
            masks.append(mask)
            touched |= names
        sizes = {name: parameter.numel() for name, parameter in context.base.model.named_parameters()}
        contract = {"share": context.mask_share, "weights_touched": sum(sizes[name] for name in touched)}
        return PoolVectors(Masks(masks, total), time.monotonic() - started, contract)


def largest_changes(
    changes: Iterable[tuple[str, Tensor]], starts: Mapping[str, int], share: float, limit: int
) -> tuple[np.ndarray, set[str]]:
    """The sorted indices of the largest `share` of all changes, (k,) int64, and the names of the changed weights.

    `starts` maps each weight to the index of its first element. `limit` bounds k and the memory: each weight is read
    once, and only the `limit` largest changes so far are kept.
    """
    largest: list[tuple[np.ndarray, np.ndarray]] = []  # magnitudes and indices
    floor, count, total, touched = 0.0, 0, 0, set()
    for name, change in changes:
        flat = change.detach().cpu().flatten().abs().numpy()
        total += flat.size
        touched.add(name)
        candidates = np.flatnonzero(flat > floor)
        largest.append((flat[candidates], candidates + starts[name]))
        count += len(candidates)
        if count > 2 * limit:
            largest = [_keep_largest(largest, limit)]
            floor, count = float(largest[0][0].min()), limit
    indices = _keep_largest(largest, min(limit, max(1, round(share * total))))[1]
    return np.sort(indices), touched


def _keep_largest(chunks: Sequence[tuple[np.ndarray, np.ndarray]], count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` largest magnitudes and their indices, unordered."""
    magnitudes = np.concatenate([values for values, _ in chunks] or [np.zeros(0)])
    indices = np.concatenate([positions for _, positions in chunks] or [np.zeros(0, dtype=np.int64)])
    if len(magnitudes) <= count:
        return magnitudes, indices
    kept = np.argpartition(magnitudes, len(magnitudes) - count)[len(magnitudes) - count :]
    return magnitudes[kept], indices[kept]
