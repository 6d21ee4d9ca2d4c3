"""Generate any number of vectors of any dimension with the statistics of real ones.

The statistics were fitted to the vectors of `examples/pool` (15 unit vectors of five domains, 576 dimensions): how the
energy of a unit vector divides into a common part, the part of the domain and the part of the model; how fast the
spectra of the last two decay; and how unequal the coordinates are. `python -m benchmarks.pool_like VECTORS.npz` fits
them again to the output of `deltadex embed`; the domain is the second to last part of each name.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np

FITTED = Path(__file__).with_suffix(".json")
RANK = 256  # directions with individual scales; the remaining energy of a model is spread over all dimensions
CHUNK = 8_192  # rows generated at once


@dataclass(frozen=True)
class PoolStatistics:
    """The energies are shares of the energy of a unit vector. A decay a means a spectrum of k**-a. `coordinate_spread`
    is the standard deviation of the logarithm of the coordinates' energies.
    """

    common_energy: float
    domain_energy: float
    model_energy: float
    domain_decay: float
    model_decay: float
    coordinate_spread: float

    @classmethod
    def fitted(cls, vectors: np.ndarray, domains: np.ndarray) -> Self:
        """Fit to vectors (n, d) and their domains (n,), with the same number of models in every domain."""
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        names, domain = np.unique(domains, return_inverse=True)
        centers = np.stack([unit[domain == index].mean(axis=0) for index in range(len(names))])
        common, residuals = unit.mean(axis=0), unit - centers[domain]
        size = len(unit) / len(names)  # models per domain
        model_energy = float((residuals**2).sum(axis=1).mean() * size / (size - 1))  # unbiased
        common_energy = float(common @ common)
        return cls(
            common_energy=common_energy,
            domain_energy=1 - common_energy - model_energy,
            model_energy=model_energy,
            domain_decay=_decay(centers - common),
            model_decay=_decay(residuals),
            coordinate_spread=float(np.log((unit**2).mean(axis=0)).std()),
        )

    @classmethod
    def load_fitted(cls) -> Self:
        return cls(**json.loads(FITTED.read_text()))


def _decay(rows: np.ndarray) -> float:
    energies = np.linalg.svd(rows, compute_uv=False) ** 2
    energies = energies[energies > 1e-9 * energies[0]]
    ranks = np.arange(1, len(energies) + 1)
    return float(-np.polyfit(np.log(ranks), np.log(energies), 1)[0])


class PoolLike:
    """A seeded source of n unit vectors of float32, in domains whose sizes decay as 1/rank.

    Every chunk has its own seed, so chunks can be generated in any order.
    """

    def __init__(self, n: int, dimension: int, seed: int = 0, statistics: PoolStatistics | None = None) -> None:
        self.n, self.dimension, self._seed = n, dimension, seed
        fit = statistics or PoolStatistics.load_fitted()
        generator = np.random.default_rng(seed)
        rank = min(RANK, dimension)
        domains = max(5, round(np.sqrt(n)))
        spread = np.exp(generator.normal(scale=fit.coordinate_spread / 2, size=dimension))
        basis = generator.standard_normal((rank + 1, dimension)) * spread
        basis /= np.linalg.norm(basis, axis=1, keepdims=True)
        coordinates = generator.standard_normal((domains, rank)) * _scales(rank, fit.domain_decay, fit.domain_energy)
        self._common = (np.sqrt(fit.common_energy) * basis[rank]).astype(np.float32)
        self._basis = basis[:rank].astype(np.float32)
        self._domain_coordinates = coordinates.astype(np.float32)
        spectrum = np.arange(1, dimension + 1) ** -fit.model_decay
        tail = fit.model_energy * spectrum[rank:].sum() / spectrum.sum()
        self._model_scales = _scales(rank, fit.model_decay, fit.model_energy - tail).astype(np.float32)
        self._tail_scales = (np.sqrt(tail / (spread**2).sum()) * spread).astype(np.float32)
        self._shares = np.cumsum(1 / np.arange(1, domains + 1)) / np.sum(1 / np.arange(1, domains + 1))

    def chunk(self, number: int) -> np.ndarray:
        """The rows from number * CHUNK on, at most CHUNK of them."""
        rows = min(CHUNK, self.n - number * CHUNK)
        generator = np.random.default_rng((self._seed, number))
        domain = np.searchsorted(self._shares, generator.random(rows))
        residuals = generator.standard_normal((rows, len(self._model_scales)), dtype=np.float32) * self._model_scales
        vectors = (self._domain_coordinates[domain] + residuals) @ self._basis + self._common
        vectors += generator.standard_normal(vectors.shape, dtype=np.float32) * self._tail_scales
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def domains(self, number: int) -> np.ndarray:
        """The domain of each row of that chunk."""
        rows = min(CHUNK, self.n - number * CHUNK)
        return np.searchsorted(self._shares, np.random.default_rng((self._seed, number)).random(rows))

    def all(self) -> np.ndarray:
        vectors = np.empty((self.n, self.dimension), np.float32)
        for number in range(-(-self.n // CHUNK)):
            vectors[number * CHUNK : (number + 1) * CHUNK] = self.chunk(number)
        return vectors


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
