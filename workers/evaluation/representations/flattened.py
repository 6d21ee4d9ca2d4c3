"""Baseline: the concatenated tensors of the adapter.

The tensors are in the order of their names, so A precedes B in each layer. If adapters differ, all of them get the
union of the coordinates: a missing tensor counts as zeros, and a smaller tensor is padded with zeros, which does not
change the effect of an adapter of lower rank. `salient_mask` uses the product B A instead, which has 29 times as many
coordinates for the example pool.
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch

from catalog.errors import UnsupportedAdapter
from workers.evaluation.pool import Pool, Progress
from workers.evaluation.representations.base import Dense, EvaluationContext, PoolVectors, Representation

Shape = tuple[int, ...]


class FlattenedWeights(Representation):
    name = "flattened_weights"

    def compute(self, pool: Pool, context: EvaluationContext, progress: Progress) -> PoolVectors:
        started = time.monotonic()
        layout: dict[str, Shape] = {}
        for number, finetune in enumerate(pool.finetunes()):
            progress(self.name, number, 2 * len(pool))
            if finetune.path == "full":
                raise UnsupportedAdapter(f"{finetune.name} is a full fine-tune and has no adapter weights.")
            for key, tensor in finetune.tensors.items():
                layout[key] = _cover(layout.get(key), tuple(tensor.shape), finetune.name, key)
        rows = np.zeros((len(pool), sum(math.prod(shape) for shape in layout.values())), dtype=np.float32)
        for number, finetune in enumerate(pool.finetunes()):
            progress(self.name, len(pool) + number, 2 * len(pool))
            start = 0
            for key, shape in sorted(layout.items()):
                stop = start + math.prod(shape)
                if key in finetune.tensors:
                    tensor = finetune.tensors[key]
                    within = tuple(slice(0, size) for size in tensor.shape)
                    rows[number, start:stop].reshape(shape)[within] = tensor.to(torch.float32).numpy()
                start = stop
        return PoolVectors(Dense(rows), time.monotonic() - started, {"tensors": len(layout)})


def _cover(largest: Shape | None, shape: Shape, model: str, key: str) -> Shape:
    """The smallest shape that both fit into. Raises `UnsupportedAdapter` if they differ in the number of axes."""
    if largest is None:
        return shape
    if len(largest) != len(shape):
        raise UnsupportedAdapter(f"{model}: {key[:120]} has {len(shape)} axes, but {len(largest)} in other models.")
    return tuple(max(sizes) for sizes in zip(largest, shape, strict=True))
