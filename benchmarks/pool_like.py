"""Generated vectors with the statistics of real ones, as many and as long as asked.

Fitted on the shift vectors of `examples/pool` (15 unit vectors of five domains, 576 dimensions): how the energy of a
unit vector divides into what all share, what a domain adds and what a model adds; how fast the spectra of the latter
two fall; and how unequal the coordinates are. `python -m benchmarks.pool_like VECTORS.npz` fits anew, where the npz is
what `deltadex embed` writes, with the domain as the last but one part of each name.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np

FITTED = Path(__file__).with_suffix(".json")
RANK = 256  # directions of the spectra that are drawn one by one; the rest of the models' is spread over all others
CHUNK = 8_192  # rows generated at once


@dataclass(frozen=True)
class PoolStatistics:
    """Energies are shares of a unit vector's; a decay a means a spectrum of k**-a; `coordinate_spread` is the standard
    deviation of the logarithm of a coordinate's energy.
    """

    common_energy: float
    domain_energy: float
    model_energy: float
    domain_decay: float
    model_decay: float
    coordinate_spread: float

    @classmethod
    def fitted(cls, vectors: np.ndarray, domains: np.ndarray) -> Self:
        """From vectors (n, d) and the domain of each, every domain with the same number of models."""
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        names, domain = np.unique(domains, return_inverse=True)
        centres = np.stack([unit[domain == each].mean(axis=0) for each in range(len(names))])
        common, inside = unit.mean(axis=0), unit - centres[domain]
        a_domain = len(unit) / len(names)
        model_energy = float((inside**2).sum(axis=1).mean() * a_domain / (a_domain - 1))  # their mean was taken out
        common_energy = float(common @ common)
        return cls(
            common_energy=common_energy,
            domain_energy=1 - common_energy - model_energy,
            model_energy=model_energy,
            domain_decay=_decay(centres - common),
            model_decay=_decay(inside),
            coordinate_spread=float(np.log((unit**2).mean(axis=0)).std()),
        )

    @classmethod
    def of_the_pool(cls) -> Self:
        return cls(**json.loads(FITTED.read_text()))


def _decay(rows: np.ndarray) -> float:
    energies = np.linalg.svd(rows, compute_uv=False) ** 2
    energies = energies[energies > 1e-9 * energies[0]]
    ranks = np.arange(1, len(energies) + 1)
    return float(-np.polyfit(np.log(ranks), np.log(energies), 1)[0])


class PoolLike:
    """A seeded source of unit vectors (n, d) float32 in domains whose sizes fall as 1/rank.

    `rows(start, stop)` gives the same vectors however they are asked for in whole chunks.
    """

    def __init__(self, n: int, dimension: int, seed: int = 0, statistics: PoolStatistics | None = None) -> None:
        self.n, self.dimension, self._seed = n, dimension, seed
        fit = statistics or PoolStatistics.of_the_pool()
        generator = np.random.default_rng(seed)
        rank = min(RANK, dimension)
        domains = max(5, round(np.sqrt(n)))
        spread = np.exp(generator.normal(scale=fit.coordinate_spread / 2, size=dimension))
        basis = generator.standard_normal((rank + 1, dimension)) * spread
        basis /= np.linalg.norm(basis, axis=1, keepdims=True)
        own = generator.standard_normal((domains, rank)) * _scales(rank, fit.domain_decay, fit.domain_energy)
        self._common = (np.sqrt(fit.common_energy) * basis[rank]).astype(np.float32)
        self._basis = basis[:rank].astype(np.float32)
        self._domain_coordinates = own.astype(np.float32)
        spectrum = np.arange(1, dimension + 1) ** -fit.model_decay
        tail = fit.model_energy * spectrum[rank:].sum() / spectrum.sum()
        self._model_scales = _scales(rank, fit.model_decay, fit.model_energy - tail).astype(np.float32)
        self._tail_scales = (np.sqrt(tail / (spread**2).sum()) * spread).astype(np.float32)
        self._shares = np.cumsum(1 / np.arange(1, domains + 1)) / np.sum(1 / np.arange(1, domains + 1))

    def chunk(self, number: int) -> np.ndarray:
        """Rows number * CHUNK and on."""
        rows = min(CHUNK, self.n - number * CHUNK)
        generator = np.random.default_rng((self._seed, number))
        domain = np.searchsorted(self._shares, generator.random(rows))
        inside = generator.standard_normal((rows, len(self._model_scales)), dtype=np.float32) * self._model_scales
        vectors = (self._domain_coordinates[domain] + inside) @ self._basis + self._common
        vectors += generator.standard_normal(vectors.shape, dtype=np.float32) * self._tail_scales
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def domains(self, number: int) -> np.ndarray:
        """Which domain each row of that chunk was drawn from."""
        rows = min(CHUNK, self.n - number * CHUNK)
        return np.searchsorted(self._shares, np.random.default_rng((self._seed, number)).random(rows))

    def all(self) -> np.ndarray:
        found = np.empty((self.n, self.dimension), np.float32)
        for number in range(-(-self.n // CHUNK)):
            found[number * CHUNK : (number + 1) * CHUNK] = self.chunk(number)
        return found


def _scales(rank: int, decay: float, energy: float) -> np.ndarray:
    spectrum = np.arange(1, rank + 1) ** -decay
    return np.sqrt(energy * spectrum / spectrum.sum())


if __name__ == "__main__":
    with np.load(sys.argv[1]) as pool:
        fit = PoolStatistics.fitted(
            pool["vectors"].astype(np.float64), np.array([str(name).split("-")[-2] for name in pool["names"]])
        )
    FITTED.write_text(json.dumps(asdict(fit), indent=2) + "\n")
    print(FITTED.read_text(), end="")
