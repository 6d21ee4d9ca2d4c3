"""Baseline: where the largest weight changes are, as a binary mask (Localize-and-Stitch, arXiv 2408.13656).

Its mask without data: the top share, by magnitude, of the task vector, tuned minus base weights. The task vector is
that of the merged weights of the headless base, so adapters of every kind and rank compare, and full fine-tunes too.
The share is one of the weights that the model changed. Masks are kept as places and intersected exactly.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import numpy as np
from torch import Tensor

from workers.evaluation.pool import Pool, Tell
from workers.evaluation.representations.base import Made, Masks, Representation, Setting
from workers.evaluation.running import weight_changes


class SalientMask(Representation):
    name = "salient_mask"

    def make(self, pool: Pool, setting: Setting, tell: Tell) -> Made:
        started = time.monotonic()
        starts, total = {}, 0
        for name, parameter in setting.base.model.named_parameters():
            starts[name] = total
            total += parameter.numel()
        most = max(1, round(setting.mask_share * total))
        touched: set[str] = set()
        places = []
        for number, finetune in enumerate(pool.finetunes()):
            tell(self.name, number, len(pool))
            changes = weight_changes(finetune, setting.base, setting.guard)
            found, names = salient(changes, starts, setting.mask_share, most)
            places.append(found)
            touched |= names
        sizes = {name: parameter.numel() for name, parameter in setting.base.model.named_parameters()}
        masks = Masks(places, total)
        contract = {"share": setting.mask_share, "weights_touched": sum(sizes[name] for name in touched)}
        return Made(masks, time.monotonic() - started, contract)


def salient(
    changes: Iterable[tuple[str, Tensor]], starts: Mapping[str, int], share: float, most: int
) -> tuple[np.ndarray, set[str]]:
    """The sorted places of the largest `share` of all changed weights, (k,) int64, and which weights were changed.

    `starts` are the places of the weights' first numbers; `most` bounds k, and with it the memory: each weight is
    looked at once and only the largest changes so far are kept.
    """
    sizes = np.zeros(0, dtype=np.float32)
    places = np.zeros(0, dtype=np.int64)
    total, touched = 0, set()
    for name, change in changes:
        flat = change.detach().cpu().flatten().abs().numpy()
        total += flat.size
        touched.add(name)
        here = _largest(flat, most)
        sizes, places = np.concatenate([sizes, flat[here]]), np.concatenate([places, here + starts[name]])
        if len(sizes) > 4 * most:
            kept = _largest(sizes, most)
            sizes, places = sizes[kept], places[kept]
    kept = _largest(sizes, min(most, max(1, round(share * total))))
    return np.sort(places[kept[sizes[kept] > 0]]), touched


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Where the `count` largest stand, in no order."""
    if len(values) <= count:
        return np.arange(len(values))
    return np.argpartition(values, len(values) - count)[len(values) - count :]
