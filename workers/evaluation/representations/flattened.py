"""Baseline: the adapter's own tensors, one behind another.

In the order of their names: a layer's A before its B. Where adapters differ, all get the union of the coordinates: a
tensor that one lacks is zeros to it, and a smaller one is filled up with zeros, which for a lower rank changes nothing
of what the adapter does. The product B A, 29 times as long for the example pool, is what `salient_mask` looks at.
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch

from catalog.errors import UnsupportedAdapter
from workers.evaluation.pool import Pool, Tell
from workers.evaluation.representations.base import Dense, Made, Representation, Setting

Shape = tuple[int, ...]


class FlattenedWeights(Representation):
    name = "flattened_weights"

    def make(self, pool: Pool, setting: Setting, tell: Tell) -> Made:
        started = time.monotonic()
        layout: dict[str, Shape] = {}
        for number, finetune in enumerate(pool.finetunes()):
            tell(self.name, number, 2 * len(pool))
            if finetune.path == "full":
                raise UnsupportedAdapter(f"{finetune.name} is a full fine-tune and has no adapter weights.")
            for key, tensor in finetune.tensors.items():
                layout[key] = _cover(layout.get(key), tuple(tensor.shape), finetune.name, key)
        rows = np.zeros((len(pool), sum(math.prod(shape) for shape in layout.values())), dtype=np.float32)
        for number, finetune in enumerate(pool.finetunes()):
            tell(self.name, len(pool) + number, 2 * len(pool))
            start = 0
            for key, shape in sorted(layout.items()):
                stop = start + math.prod(shape)
                if key in finetune.tensors:
                    tensor = finetune.tensors[key]
                    within = tuple(slice(0, size) for size in tensor.shape)
                    rows[number, start:stop].reshape(shape)[within] = tensor.to(torch.float32).numpy()
                start = stop
        return Made(Dense(rows), time.monotonic() - started, {"tensors": len(layout)})


def _cover(known: Shape | None, shape: Shape, model: str, key: str) -> Shape:
    """The least shape that has room for both; raises `UnsupportedAdapter` where they differ in axes."""
    if known is None:
        return shape
    if len(known) != len(shape):
        raise UnsupportedAdapter(f"{model}: {key[:120]} has other axes than in the models before it.")
    return tuple(max(pair) for pair in zip(known, shape, strict=True))
