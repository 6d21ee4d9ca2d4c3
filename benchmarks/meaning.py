"""Measure how well `delta_meaning` finds models of the same domain across two bases, and what the feature costs.

    python -m benchmarks.fetch_gemma GEMMA
    python -m benchmarks.meaning --smol SMOL --gemma GEMMA --gemma-pool DIR [--vectors FILE.npz] [--json]

The fifteen adapters of `examples/pool` (base: `examples/fetch_base.py`) are compared with adapters of gemma-3-270m in
the folders `...-DOMAIN-SPLIT` of DIR. A rate is the share of models whose nearest neighbor of the other base is of the
same domain, once for Gemma's models and once for SmolLM2's. `served` is the geometry that searches use. `share` draws a
share of the continuations a hundred times; its rate is the mean, with the 5th and 95th percentile.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.geometries import raw
from catalog.errors import CatalogError
from catalog.geometry.transforms import Floats, centered, standardized
from catalog.spaces.probes import load_probes
from examples.demo import POOL, domain
from workers.encoding.encoder import Encoder, Encoding
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import read_finetune

DRAWS = 100
SHARES = (0.125, 0.25, 0.5)
COMPARED_FEATURES = ("delta_activations", "delta_layers")  # for the cost
Transform = Callable[[Floats], Floats]  # unit vectors of the models of one base, (n, d)
GEOMETRIES: dict[str, Transform] = {
    "served": lambda unit: standardized(unit).apply(unit),
    "centered": lambda unit: centered(unit).apply(unit),
    "raw": lambda unit: raw(unit).apply(unit),
}


@dataclass(frozen=True)
class Pool:
    """Models of one base: their domains (n,), vectors (n, d), and the seconds per model of each feature."""

    domains: list[str]
    vectors: Floats
    seconds: dict[str, float]


@dataclass(frozen=True)
class Rates:
    """The shares of models whose nearest neighbor of the other base is of their domain."""

    gemma: float
    smol: float


def main(
    smol: Annotated[Path, typer.Option(help="Folder of SmolLM2-135M-Instruct.")],
    gemma: Annotated[Path, typer.Option(help="Folder of gemma-3-270m.")],
    gemma_pool: Annotated[Path, typer.Option(help="Folder of the adapters of gemma-3-270m.")],
    vectors: Annotated[Path | None, typer.Option(help="Save the vectors in this npz file.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Encode both pools, and print the rates and the cost."""
    gemma_models, smol_models = encode_pool(gemma, gemma_pool), encode_pool(smol, POOL)
    if vectors is not None:
        np.savez_compressed(
            vectors,
            gemma=gemma_models.vectors,
            gemma_names=gemma_models.domains,
            smol=smol_models.vectors,
            smol_names=smol_models.domains,
        )
    cost = {"smol": costs(smol_models), "gemma": costs(gemma_models)}
    report = {"rates": all_rates(gemma_models, smol_models), "cost": cost}
    print(json.dumps(report)) if as_json else Console().print(*tables(report))


def encode_pool(base: Path, pool: Path) -> Pool:
    """Encode each adapter in a folder with each feature. The base is loaded and measured beforehand."""
    resident = ResidentBase.load(base, "base", "0" * 40)
    folders = sorted(folder for folder in pool.iterdir() if (folder / "adapter_config.json").exists())
    finetunes = [read_finetune(folder) for folder in folders]
    seconds, vectors = {}, np.empty(0)
    for feature in (*COMPARED_FEATURES, "delta_meaning"):
        encoder = Encoder(resident, load_probes(), [feature])
        encoder.measure_base()
        started = time.perf_counter()
        encodings = encoder.encode(finetunes)
        seconds[feature] = (time.perf_counter() - started) / len(finetunes)
        vectors = np.stack([_checked(encoding).vectors[feature] for encoding in encodings])
    return Pool([domain(folder.name) for folder in folders], vectors, seconds)


def _checked(encoding: Encoding | CatalogError) -> Encoding:
    if isinstance(encoding, CatalogError):
        raise encoding
    return encoding


def all_rates(gemma: Pool, smol: Pool) -> dict[str, Any]:
    """The rates of each geometry, and of each share of the continuations."""
    by_geometry = {name: vars(rates(gemma, smol, transform)) for name, transform in GEOMETRIES.items()}
    return by_geometry | {f"share {share:g}": sampled_rates(gemma, smol, share) for share in SHARES}


def rates(gemma: Pool, smol: Pool, transform: Transform, texts: Sequence[int] | None = None) -> Rates:
    """The rates in a geometry, with the continuations `texts` or with all of them."""
    gemma_unit, smol_unit = (
        _unit(pool.vectors if texts is None else _relative(pool.vectors[:, texts])) for pool in (gemma, smol)
    )
    cosines = _unit(transform(gemma_unit)) @ _unit(transform(smol_unit)).T  # (gemma, smol)
    gemma_domains, smol_domains = np.array(gemma.domains), np.array(smol.domains)
    return Rates(
        float(np.mean(gemma_domains == smol_domains[cosines.argmax(axis=1)])),
        float(np.mean(smol_domains == gemma_domains[cosines.argmax(axis=0)])),
    )


def sampled_rates(gemma: Pool, smol: Pool, share: float, seed: int = 0) -> dict[str, list[float]]:
    """Mean, 5th and 95th percentile of the served rates over draws of a share of the continuations."""
    generator, count = np.random.default_rng(seed), gemma.vectors.shape[1]
    draws = [generator.choice(count, round(share * count), replace=False) for _ in range(DRAWS)]
    samples = [rates(gemma, smol, GEOMETRIES["served"], draw) for draw in draws]
    return {
        base: [float(np.mean(values)), *np.quantile(values, (0.05, 0.95)).tolist()]
        for base, values in (("gemma", [rate.gemma for rate in samples]), ("smol", [rate.smol for rate in samples]))
    }


def costs(pool: Pool) -> dict[str, Any]:
    """Seconds per model, the ratio to each other feature, and the bytes of a stored vector."""
    seconds = pool.seconds["delta_meaning"]
    times = {feature: round(seconds / pool.seconds[feature], 1) for feature in COMPARED_FEATURES}
    return {"seconds": round(seconds, 3), "times": times, "bytes": 4 * pool.vectors.shape[1]}


def tables(report: dict[str, Any]) -> list[Table]:
    rate_table, cost_table = Table("", "gemma", "smol"), Table("", "s per model", "times", "bytes")
    for name, row in report["rates"].items():
        rate_table.add_row(name, *(_format_rate(row[base]) for base in ("gemma", "smol")))
    for name, row in report["cost"].items():
        times = ", ".join(f"{feature} x {ratio}" for feature, ratio in row["times"].items())
        cost_table.add_row(name, f"{row['seconds']:.2f}", times, f"{row['bytes']:,}")
    return [rate_table, cost_table]


def _format_rate(rate: float | list[float]) -> str:
    return f"{rate:.2f}" if isinstance(rate, float) else "{:.2f} ({:.2f} to {:.2f})".format(*rate)


def _relative(vectors: Floats) -> Floats:
    """Center `delta_meaning` vectors again, as if it had been measured with these continuations only."""
    return vectors - vectors.mean(axis=1, keepdims=True)


def _unit(vectors: Floats) -> Floats:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


if __name__ == "__main__":
    typer.run(main)
