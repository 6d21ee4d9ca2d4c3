"""Baseline: where the largest weight changes are, as a binary mask (Localize-and-Stitch, arXiv 2408.13656).

Its mask without data: the top share, by magnitude, of the task vector, tuned minus base weights. The task vector is
that of the merged weights of the headless base, so adapters of every kind and rank compare, and full fine-tunes too.
The share is one of the weights that the model changed. Masks are kept as places and intersected exactly.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

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
        touched: set[str] = set()
        places = []
        for number, finetune in enumerate(pool.finetunes()):
            tell(self.name, number, len(pool))
            changed = sum(each.a.shape[1] * each.b.shape[0] for each in finetune.modules.values())
            most = max(1, round(setting.mask_share * (changed if finetune.path == "lora" else total)))
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

    `starts` are the places of the weights' first numbers. `most` bounds k, and with it the memory: each weight is
    looked at once, and of what was seen so far only the largest `most` changes are kept.
    """
    held: list[tuple[np.ndarray, np.ndarray]] = []  # magnitudes and places
    floor, count, total, touched = 0.0, 0, 0, set()
    for name, change in changes:
        flat = change.detach().cpu().flatten().abs().numpy()
        total += flat.size
        touched.add(name)
        here = np.flatnonzero(flat > floor)
        held.append((flat[here], here + starts[name]))
        count += len(here)
        if count > 2 * most:
            held = [_largest(held, most)]
            floor, count = float(held[0][0].min()), most
    places = _largest(held, min(most, max(1, round(share * total))))[1]
    return np.sort(places), touched


def _largest(held: Sequence[tuple[np.ndarray, np.ndarray]], count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` largest magnitudes and their places, in no order."""
    sizes = np.concatenate([each for each, _ in held] or [np.zeros(0)])
    places = np.concatenate([each for _, each in held] or [np.zeros(0, dtype=np.int64)])
    if len(sizes) <= count:
        return sizes, places
    kept = np.argpartition(sizes, len(sizes) - count)[len(sizes) - count :]
    return sizes[kept], places[kept]
