"""Whether models of two bases that learned the same find each other in the space of `delta_meaning`, and what it costs.

    python -m benchmarks.fetch_gemma GEMMA
    python -m benchmarks.meaning --smol SMOL --gemma GEMMA --gemma-pool DIR [--vectors FILE.npz] [--json]

The fifteen adapters of `examples/pool` (base: `examples/fetch_base.py`) against adapters of gemma-3-270m, folders in
DIR named `...-DOMAIN-SPLIT`. Every figure is a share of models whose nearest of the other base is of their domain: of
Gemma's among SmolLM2's, and of SmolLM2's among Gemma's. `served` is what searches compare in; the other lines change
one thing about it. `part` draws a part of the continuations a hundred times: mean, and the middle nine tenths of draws.
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

from catalog.errors import CatalogError
from catalog.geometry.transforms import Floats, centred, raw, standardised
from catalog.spaces.probes import load_probes
from examples.demo import POOL, domain
from workers.encoding.encoder import Encoder
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import read_finetune

DRAWS = 100
PARTS = (0.125, 0.25, 0.5)
COMPARED = ("delta_activations", "delta_layers")  # costs beside
Place = Callable[[Floats], Floats]  # unit vectors of one base's models (n, d), as they are compared
GEOMETRIES: dict[str, Place] = {
    "served": lambda unit: standardised(unit).apply(unit),
    "centred": lambda unit: centred(unit, norm_power=1.0).apply(unit),
    "raw": lambda unit: raw(unit).apply(unit),
}


@dataclass(frozen=True)
class Pool:
    """Models of one base: their domains (n,), their vectors (n, d), and what each feature took in seconds a model."""

    domains: list[str]
    vectors: Floats
    seconds: dict[str, float]


@dataclass(frozen=True)
class Rates:
    """Shares of models whose nearest of the other base is of their domain, one way and the other."""

    there: float
    back: float


def main(
    smol: Annotated[Path, typer.Option(help="Folder of SmolLM2-135M-Instruct.")],
    gemma: Annotated[Path, typer.Option(help="Folder of gemma-3-270m.")],
    gemma_pool: Annotated[Path, typer.Option(help="Folder of its adapters.")],
    vectors: Annotated[Path | None, typer.Option(help="Keep the vectors in this npz.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure both pools, and print how well they find each other."""
    theirs, ours = measured(gemma, gemma_pool), measured(smol, POOL)
    if vectors is not None:
        np.savez_compressed(vectors, gemma=theirs.vectors, gemma_names=theirs.domains, smol=ours.vectors,
                            smol_names=ours.domains)  # fmt: skip
    report = {"rates": judged(theirs, ours), "cost": {"smol": costs(ours), "gemma": costs(theirs)}}
    print(json.dumps(report)) if as_json else Console().print(*tables(report))


def measured(base: Path, pool: Path) -> Pool:
    """Encodes each adapter in a folder, once a feature, the base being in memory and measured."""
    resident = ResidentBase.load(base, "base", "0" * 40)
    folders = sorted(folder for folder in pool.iterdir() if (folder / "adapter_config.json").exists())
    finetunes = [read_finetune(folder) for folder in folders]
    seconds, vectors = {}, np.empty(0)
    for feature in (*COMPARED, "delta_meaning"):
        encoder = Encoder(resident, load_probes(), [feature])
        encoder.measure_base()
        started = time.perf_counter()
        found = encoder.encode(finetunes)
        seconds[feature] = (time.perf_counter() - started) / len(finetunes)
        vectors = np.stack([_sound(each).vectors[feature] for each in found])
    return Pool([domain(folder.name) for folder in folders], vectors, seconds)


def _sound(found: Any) -> Any:
    if isinstance(found, CatalogError):
        raise found
    return found


def judged(theirs: Pool, ours: Pool) -> dict[str, Any]:
    """By geometry, and by the part of the continuations."""
    whole = {name: vars(rates(theirs, ours, place)) for name, place in GEOMETRIES.items()}
    return whole | {f"part {part:g}": drawn(theirs, ours, part) for part in PARTS}


def rates(theirs: Pool, ours: Pool, place: Place, texts: Sequence[int] | None = None) -> Rates:
    """With some of the continuations alone, or all."""
    unit = [_unit(pool.vectors if texts is None else _relative(pool.vectors[:, texts])) for pool in (theirs, ours)]
    cosines = _unit(place(unit[0])) @ _unit(place(unit[1])).T  # (theirs, ours)
    there = [mine == ours.domains[other] for mine, other in zip(theirs.domains, cosines.argmax(axis=1), strict=True)]
    back = [mine == theirs.domains[other] for mine, other in zip(ours.domains, cosines.argmax(axis=0), strict=True)]
    return Rates(float(np.mean(there)), float(np.mean(back)))


def drawn(theirs: Pool, ours: Pool, part: float, seed: int = 0) -> dict[str, list[float]]:
    """Mean, fifth and ninety-fifth percentile of the served rates over draws of a part of the continuations."""
    random, count = np.random.default_rng(seed), theirs.vectors.shape[1]
    draws = [random.choice(count, round(part * count), replace=False) for _ in range(DRAWS)]
    found = [rates(theirs, ours, GEOMETRIES["served"], draw) for draw in draws]
    return {
        way: [float(np.mean(each)), *np.quantile(each, (0.05, 0.95)).tolist()]
        for way, each in (("there", [rate.there for rate in found]), ("back", [rate.back for rate in found]))
    }


def costs(pool: Pool) -> dict[str, Any]:
    """Seconds a model, what times each other feature's that is, and the bytes of a stored vector."""
    own = pool.seconds["delta_meaning"]
    times = {feature: round(own / pool.seconds[feature], 1) for feature in COMPARED}
    return {"seconds": round(own, 3), "times": times, "bytes": 4 * pool.vectors.shape[1]}


def tables(report: dict[str, Any]) -> list[Table]:
    rates_, costs_ = Table("", "of gemma's", "of smol's"), Table("", "s a model", "times", "bytes")
    for name, each in report["rates"].items():
        rates_.add_row(name, *(_told(each[way]) for way in ("there", "back")))
    for name, each in report["cost"].items():
        times = ", ".join(f"{feature} x {ratio}" for feature, ratio in each["times"].items())
        costs_.add_row(name, f"{each['seconds']:.2f}", times, f"{each['bytes']:,}")
    return [rates_, costs_]


def _told(rate: float | list[float]) -> str:
    return f"{rate:.2f}" if isinstance(rate, float) else "{:.2f} ({:.2f} to {:.2f})".format(*rate)


def _relative(vectors: Floats) -> Floats:
    """As `delta_meaning` would have come out with these texts alone."""
    return vectors - vectors.mean(axis=1, keepdims=True)


def _unit(vectors: Floats) -> Floats:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


if __name__ == "__main__":
    typer.run(main)
