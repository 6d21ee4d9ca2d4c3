"""Measure the index: `python -m benchmarks.index --json`.

All measurements run on one machine. The exact scan and the index alternate at each size.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import faiss
import typer
from rich.console import Console

from benchmarks.index import live, sizes
from benchmarks.index.catalogs import Catalog, open_catalog
from benchmarks.index.data import Data

SIZES = ((1_000, 4_096), (10_000, 4_096), (100_000, 4_096), (1_000_000, 576))
TARGET_SIZE = (100_000, 4_096)  # the size of all other measurements
app = typer.Typer(add_completion=False)
console = Console(stderr=True)


@app.command()
def main(
    smallest: Annotated[int, typer.Option(help="Skip sizes with fewer vectors.")] = 1,
    largest: Annotated[int, typer.Option(help="Skip sizes with more vectors.")] = 1_000_000,
    libraries: Annotated[float, typer.Option(help="Maximum seconds of a build with another library; 0 skips.")] = 600,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Measure latency, recall, memory, freshness, rebuilds and startup of the index, and other libraries."""
    report: dict[str, Any] = {"threads": faiss.omp_get_max_threads(), "cpu": faiss.get_compile_options(), "sizes": []}
    for n, d in SIZES:
        if not smallest <= n <= largest:
            continue
        data = Data(n, d)
        with console.status(f"{n:,} x {d:,}"), open_catalog(data) as catalog:
            report["sizes"].append(sizes.measure(catalog))
            _log(report["sizes"][-1])
            if (n, d) == TARGET_SIZE:
                report |= _measure_target_size(catalog, data, libraries)
    targets = {name: {"value": value, "limit": limit, "met": met} for name, value, limit, met in check_targets(report)}
    report["targets"] = targets
    print(json.dumps(report) if as_json else json.dumps(report, indent=1))
    sys.exit(not all(target["met"] for target in targets.values()))


def _measure_target_size(catalog: Catalog, data: Data, library_seconds: float) -> dict[str, Any]:
    report: dict[str, Any] = {}
    for measure in (live.startup, live.freshness, live.rebuild):
        report[measure.__name__] = measure(catalog)
        _log(report[measure.__name__])
    if library_seconds:
        from benchmarks.index import libraries  # needs the extra `bench`

        report["libraries"] = libraries.measure(data, catalog.servers.database_url, library_seconds, _log)
    return report


def check_targets(report: dict[str, Any]) -> Iterator[tuple[str, float, float, bool]]:
    """The targets at `TARGET_SIZE`: name, value, limit, and whether it is met."""
    row = next((row for row in report["sizes"] if (row["n"], row["dimension"]) == TARGET_SIZE), None)
    if row is None:
        return

    def at_least(name: str, value: float, limit: float) -> tuple[str, float, float, bool]:
        return name, value, limit, value >= limit

    def at_most(name: str, value: float, limit: float) -> tuple[str, float, float, bool]:
        return name, value, limit, value <= limit

    yield at_least("recall_at_10", row["recall_at_10"], 0.99)
    yield at_least("speedup_over_exact_scan", row["speedup_over_exact_scan"], 40)
    yield at_most("share_of_float32_bytes", row["share_of_float32_bytes"], 0.28)
    yield at_most("largest_cosine_error", row["largest_cosine_error"], 1e-4)
    yield at_most("filter_1%_relative_latency", row["filters"]["1%"]["relative_latency"], 3)
    yield at_least("filter_0.1%_fewest_results", row["filters"]["0.1%"]["fewest_results"], 10)
    yield at_least("stream_mb_per_s", row["stream_mb_per_s"], 100)
    yield at_most("insert_to_searchable_p99_s", report["freshness"]["p99_s"], 1)
    yield at_most("rebuild_relative_p99", report["rebuild"]["relative_p99"], 2)
    yield at_most("startup_seconds", max(report["startup"]["seconds"]), 3)


def _log(measurement: object) -> None:
    console.print(measurement)


if __name__ == "__main__":
    app()
