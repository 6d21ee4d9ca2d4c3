"""The Delta-X family, as the encoder measures it."""

from __future__ import annotations

import time

import numpy as np

from catalog.errors import CatalogError
from workers.embed import named
from workers.encoding.encoder import Encoder
from workers.evaluation.pool import Pool, Tell
from workers.evaluation.representations.base import Dense, Made, Representation, Setting


class DeltaFeature(Representation):
    """One feature. The base is measured before the clock starts: it is, once for a space."""

    def __init__(self, name: str) -> None:
        self.name = name

    def make(self, pool: Pool, setting: Setting, tell: Tell) -> Made:
        encoder = Encoder(setting.base, setting.probes, [self.name])
        encoder.measure_base()
        started = time.monotonic()
        rows = encode(pool, encoder, self.name, setting.batch, tell)
        return Made(Dense(rows), time.monotonic() - started, {"space": encoder.space(self.name).as_dict()})


def encode(pool: Pool, encoder: Encoder, feature: str, batch: int, tell: Tell) -> np.ndarray:
    """(n, d) float32; raises the first model's error, named."""
    rows: list[np.ndarray] = []
    for finetunes in pool.batches(batch):
        tell(feature, len(rows), len(pool))
        for finetune, result in zip(finetunes, encoder.encode(finetunes), strict=True):
            if isinstance(result, CatalogError):
                raise named(result, finetune.name)
            rows.append(result.vectors[feature])
    return np.stack(rows)
