"""Compare the vectors of merged adapters with the sum of the vectors of their parts.

    python -m benchmarks.merges --base FOLDER --json

Every pair of domains of `examples/pool` is merged with every method of PEFT. `--base` is the folder of
SmolLM2-135M-Instruct. The parts are the first adapters of the domains, with equal weights. Reported for each merge and
feature: the `cosine` between its vector and the sum of those of its parts; the `ratio` of their norms; `own_pair`,
whether the nearest of all sums of two domains (means of their three adapters) is that of its own domains; and
`imbalance`, the difference between the cosines to the two parts; also the seconds of merging, and the rank.

All adapters of the pool were initialized with the same random A, so their factors are similar. `--rotated` rotates the
factors of the second part (B R^T and R A with a random rotation R), which does not change the adapter. Methods that
combine products B A are not affected.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from catalog.merges.methods import METHODS, MergeSpec
from catalog.spaces.probes import load_probes
from catalog.tables import Merge
from catalog.vectors.numeric import cosine
from examples.demo import domain
from workers.encoding.encoder import Encoder, Encoding
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import FineTune, read_finetune
from workers.merges import adapter_writer
from workers.merges.combining import combine

POOL = Path(__file__).parents[1] / "examples" / "pool"
FEATURES = ("delta_layers", "delta_activations")
SUMMARY_COLUMNS = (
    "method",
    "feature",
    "cosine_median",
    "cosine_min",
    "ratio_median",
    "own_pair",
    "imbalance_median",
    "seconds_median",
)
Vectors = dict[str, np.ndarray]


def encode(encoder: Encoder, adapters: list[FineTune]) -> list[Vectors]:
    results = encoder.encode(adapters)
    if errors := [result for result in results if not isinstance(result, Encoding)]:
        raise SystemExit(f"encoding failed: {errors}")
    return [result.vectors for result in results if isinstance(result, Encoding)]


def merge_and_encode(encoder: Encoder, parts: dict[str, FineTune], spec: MergeSpec) -> tuple[Vectors, float, int]:
    """The vectors of a merge, the seconds of merging, and the rank of the result."""
    start = time.perf_counter()
    modules = combine([part.modules for part in parts.values()], spec, device=encoder.base.device)
    seconds = time.perf_counter() - start
    merge_parts = [
        {"repo_id": name, "sha": "", "weight": spec.weights[name], "license": None, "datasets": []} for name in parts
    ]
    base = {"base_repo": encoder.base.repo, "base_sha": encoder.base.sha}
    merge = Merge(id=1, name=None, method=spec.method, settings=spec.settings, parts=merge_parts, **base)
    with TemporaryDirectory() as top:
        folder = Path(top)
        adapter_writer.write(folder, merge, modules, encoder.base.model, [part.config for part in parts.values()])
        [vectors] = encode(encoder, [read_finetune(folder)])
    return vectors, seconds, next(iter(modules.values())).a.shape[0]


def rotate_factors(adapter: FineTune) -> FineTune:
    """The same adapter with other factors of each product B A."""
    generator = torch.Generator().manual_seed(0)
    modules = {}
    for name, module in adapter.modules.items():
        rank = module.a.shape[0]
        rotation, _ = torch.linalg.qr(torch.randn(rank, rank, generator=generator))
        modules[name] = replace(module, a=rotation @ module.a.float(), b=module.b.float() @ rotation.T)
    return replace(adapter, modules=modules)


def merge_rows(
    encoder: Encoder, methods: list[str], density: float, weight: float, rotated: bool
) -> Iterator[dict[str, Any]]:
    """One row per pair of domains, method and feature."""
    adapters = {folder.name: read_finetune(folder) for folder in sorted(POOL.iterdir()) if folder.is_dir()}
    vectors = dict(zip(adapters, encode(encoder, list(adapters.values())), strict=True))
    domains = sorted({domain(name) for name in adapters})
    means = {
        label: {
            feature: np.mean([vectors[name][feature] for name in adapters if domain(name) == label], axis=0)
            for feature in FEATURES
        }
        for label in domains
    }
    first = {domain(name): name for name in adapters if name.endswith("-first")}
    for pair in combinations(domains, 2):
        names = [first[label] for label in pair]
        parts = {name: adapters[name] for name in names}
        if rotated:
            parts[names[1]] = rotate_factors(parts[names[1]])
        for method in methods:
            spec = MergeSpec(dict.fromkeys(names, weight), method, density)
            merge_vectors, seconds, rank = merge_and_encode(encoder, parts, spec)
            for feature in FEATURES:
                vector, part_vectors = merge_vectors[feature], [vectors[name][feature] for name in names]
                total = weight * (part_vectors[0] + part_vectors[1])
                cosines_to_sums = {
                    (one, other): cosine(vector, means[one][feature] + means[other][feature])
                    for one, other in combinations(domains, 2)
                }
                cosines_to_parts = [cosine(vector, part) for part in part_vectors]
                yield {
                    "pair": " + ".join(pair),
                    "method": method,
                    "feature": feature,
                    "parts": cosine(*part_vectors),
                    "cosine": cosine(vector, total),
                    "ratio": float(np.linalg.norm(vector) / np.linalg.norm(total)),
                    "own_pair": max(cosines_to_sums, key=cosines_to_sums.__getitem__) == pair,
                    "imbalance": abs(cosines_to_parts[0] - cosines_to_parts[1]),
                    "seconds": seconds,
                    "rank": rank,
                }


def summarize(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per method and feature."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["method"], row["feature"]].append(row)
    return [
        {
            "method": method,
            "feature": feature,
            "merges": len(group),
            "cosine_median": median(row["cosine"] for row in group),
            "cosine_min": min(row["cosine"] for row in group),
            "ratio_median": median(row["ratio"] for row in group),
            "own_pair": sum(row["own_pair"] for row in group),
            "imbalance_median": median(row["imbalance"] for row in group),
            "seconds_median": median(row["seconds"] for row in group),
            "rank": group[0]["rank"],
        }
        for (method, feature), group in groups.items()
    ]


def main(
    base: Annotated[Path, typer.Option(help="Folder of SmolLM2-135M-Instruct.")],
    method: Annotated[list[str] | None, typer.Option(help="A method; repeatable. Default: all.")] = None,
    density: Annotated[float, typer.Option(help="Share of the weights that pruning methods keep.")] = 0.5,
    weight: Annotated[float, typer.Option(help="Weight of both parts.")] = 1.0,
    rotated: Annotated[bool, typer.Option(help="Rotate the factors of the second part.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Merge every pair of domains with every method, and measure the results."""
    resident = ResidentBase.load(base, "HuggingFaceTB/SmolLM2-135M-Instruct", "0" * 40)
    encoder = Encoder(resident, load_probes(), FEATURES)
    rows = list(merge_rows(encoder, method or list(METHODS), density, weight, rotated))
    summary = summarize(rows)
    report = {"density": density, "weight": weight, "rotated": rotated, "summary": summary, "rows": rows}
    if as_json:
        print(json.dumps(report))
        return
    table = Table(*SUMMARY_COLUMNS)
    for row in summary:
        table.add_row(
            *(f"{row[name]:.3f}" if isinstance(row[name], float) else str(row[name]) for name in SUMMARY_COLUMNS)
        )
    Console(width=160).print(table)


if __name__ == "__main__":
    typer.run(main)
