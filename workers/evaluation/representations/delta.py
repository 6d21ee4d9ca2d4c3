"""The Delta-X features, computed by the encoder."""

from __future__ import annotations

import time

import numpy as np

from catalog.errors import CatalogError
from workers.embed import with_name
from workers.encoding.encoder import Encoder
from workers.evaluation.pool import Pool, Progress
from workers.evaluation.representations.base import Dense, EvaluationContext, PoolVectors, Representation


class DeltaFeature(Representation):
    """One Delta-X feature. The base is measured before the clock starts, because a space measures it only once."""

    def __init__(self, name: str) -> None:
        self.name = name

    def compute(self, pool: Pool, context: EvaluationContext, progress: Progress) -> PoolVectors:
        encoder = Encoder(context.base, context.probes, [self.name])
        encoder.measure_base()
        started = time.monotonic()
        rows = encode(pool, encoder, self.name, context.batch, progress)
        return PoolVectors(Dense(rows), time.monotonic() - started, {"space": encoder.space(self.name).as_dict()})


def encode(pool: Pool, encoder: Encoder, feature: str, batch: int, progress: Progress) -> np.ndarray:
    """The vectors of the pool's models, (n, d) float32. Raises the first error, prefixed with the model's name."""
    rows: list[np.ndarray] = []
    for finetunes in pool.batches(batch):
        progress(feature, len(rows), len(pool))
        for finetune, result in zip(finetunes, encoder.encode(finetunes), strict=True):
            if isinstance(result, CatalogError):
                raise with_name(result, finetune.name)
            rows.append(result.vectors[feature])
    return np.stack(rows)
