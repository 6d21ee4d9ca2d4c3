"""What merged adapters do, beside what the sum of their parts predicts: every pair of domains of `examples/pool`, by
every method of PEFT.

    python -m benchmarks.merges --base FOLDER --json

`--base` holds SmolLM2-135M-Instruct. The parts are the domains' first adapters, with one weight. Of each merge the
figures are, in each feature: `cosine` of its vector to the sum of its parts'; `ratio` of its length to the sum's;
`own`, whether of all sums of two domains (the means of their three adapters) its nearest is that of its own two; and
`lean`, how much nearer it is to one part than to the other. Besides, the seconds that merging takes, and its rank.

The adapters of the pool began as the same random A, so their factors are alike. With `--turned` the second part's are
turned: B R^T and R A with a random rotation R, which is the same adapter. Methods that combine products do not notice.
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

from catalog.merges.methods import METHODS, Blend
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
SUMMARY = ("method", "feature", "cosine_median", "cosine_least", "ratio_median", "own", "lean_median", "seconds_median")
Vectors = dict[str, np.ndarray]


def encode(encoder: Encoder, adapters: list[FineTune]) -> list[Vectors]:
    found = encoder.encode(adapters)
    if wrong := [each for each in found if not isinstance(each, Encoding)]:
        raise SystemExit(f"not embedded: {wrong}")
    return [each.vectors for each in found if isinstance(each, Encoding)]


def merged(encoder: Encoder, parts: dict[str, FineTune], blend: Blend) -> tuple[Vectors, float, int]:
    """The vectors of a merge, the seconds that merging took, and its rank."""
    start = time.perf_counter()
    modules = combine([part.modules for part in parts.values()], blend, device=encoder.base.device)
    seconds = time.perf_counter() - start
    rows = [
        {"repo_id": name, "sha": "", "weight": blend.weights[name], "licence": None, "datasets": []} for name in parts
    ]
    base = {"base_repo": encoder.base.repo, "base_sha": encoder.base.sha}
    merge = Merge(id=1, name=None, method=blend.method, settings=blend.settings, parts=rows, **base)
    with TemporaryDirectory() as top:
        made = Path(top)
        adapter_writer.write(made, merge, modules, encoder.base.model, [part.config for part in parts.values()])
        [vectors] = encode(encoder, [read_finetune(made)])
    return vectors, seconds, next(iter(modules.values())).a.shape[0]


def turned(adapter: FineTune) -> FineTune:
    """The same adapter, each pair written with other factors."""
    generator = torch.Generator().manual_seed(0)
    modules = {}
    for name, module in adapter.modules.items():
        rank = module.a.shape[0]
        rotation, _ = torch.linalg.qr(torch.randn(rank, rank, generator=generator))
        modules[name] = replace(module, a=rotation @ module.a.float(), b=module.b.float() @ rotation.T)
    return replace(adapter, modules=modules)


def rows(encoder: Encoder, methods: list[str], density: float, weight: float, turn: bool) -> Iterator[dict[str, Any]]:
    adapters = {each.name: read_finetune(each) for each in sorted(POOL.iterdir()) if each.is_dir()}
    vectors = dict(zip(adapters, encode(encoder, list(adapters.values())), strict=True))
    domains = sorted({domain(name) for name in adapters})
    means = {
        each: {
            feature: np.mean([vectors[name][feature] for name in adapters if domain(name) == each], axis=0)
            for feature in FEATURES
        }
        for each in domains
    }
    first = {domain(name): name for name in adapters if name.endswith("-first")}
    for pair in combinations(domains, 2):
        names = [first[each] for each in pair]
        used = {name: turned(adapters[name]) if turn and name == names[1] else adapters[name] for name in names}
        for method in methods:
            blend = Blend(dict.fromkeys(names, weight), method, density)
            made, seconds, rank = merged(encoder, used, blend)
            for feature in FEATURES:
                vector, parts = made[feature], [vectors[name][feature] for name in names]
                total = weight * (parts[0] + parts[1])
                sums = {
                    two: cosine(vector, means[two[0]][feature] + means[two[1]][feature])
                    for two in combinations(domains, 2)
                }
                closeness = [cosine(vector, part) for part in parts]
                yield {
                    "pair": " + ".join(pair),
                    "method": method,
                    "feature": feature,
                    "parts": cosine(*parts),
                    "cosine": cosine(vector, total),
                    "ratio": float(np.linalg.norm(vector) / np.linalg.norm(total)),
                    "own": max(sums, key=sums.__getitem__) == pair,
                    "lean": abs(closeness[0] - closeness[1]),
                    "seconds": seconds,
                    "rank": rank,
                }


def summary(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line for each method and feature."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in found:
        groups[row["method"], row["feature"]].append(row)
    return [
        {
            "method": method,
            "feature": feature,
            "merges": len(some),
            "cosine_median": median(row["cosine"] for row in some),
            "cosine_least": min(row["cosine"] for row in some),
            "ratio_median": median(row["ratio"] for row in some),
            "own": sum(row["own"] for row in some),
            "lean_median": median(row["lean"] for row in some),
            "seconds_median": median(row["seconds"] for row in some),
            "rank": some[0]["rank"],
        }
        for (method, feature), some in groups.items()
    ]


def main(
    base: Annotated[Path, typer.Option(help="Folder of SmolLM2-135M-Instruct.")],
    method: Annotated[list[str] | None, typer.Option(help="Of these alone; all without.")] = None,
    density: Annotated[float, typer.Option(help="Share that pruning methods keep.")] = 0.5,
    weight: Annotated[float, typer.Option(help="Of both parts.")] = 1.0,
    turn: Annotated[bool, typer.Option("--turned", help="Turn the second part's factors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Merges every pair of domains by every method, and measures what comes out."""
    resident = ResidentBase.load(base, "HuggingFaceTB/SmolLM2-135M-Instruct", "0" * 40)
    encoder = Encoder(resident, load_probes(), FEATURES)
    found = list(rows(encoder, method or list(METHODS), density, weight, turn))
    report = {"density": density, "weight": weight, "turned": turn, "summary": summary(found), "rows": found}
    if as_json:
        print(json.dumps(report))
        return
    table = Table(*SUMMARY)
    for row in report["summary"]:
        table.add_row(*(f"{row[name]:.3f}" if isinstance(row[name], float) else str(row[name]) for name in SUMMARY))
    Console(width=160).print(table)


if __name__ == "__main__":
    typer.run(main)
