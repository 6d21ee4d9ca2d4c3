"""The scorecard as a table on the terminal and as files."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.filesize import decimal
from rich.table import Table

from catalog.errors import InvalidInput
from workers.evaluation.pool import Pool
from workers.evaluation.scorecard import PAPER_BASELINES, PAPER_BASES, PUBLISHED, Estimate, Result

METRICS = ("silhouette", "silhouette_centered", "nearest", "adjusted_rand")


def scorecard_table(results: Sequence[Result]) -> Table:
    """Every metric, with its 95% interval below it."""
    table = Table("representation", title="measured on your pool", title_justify="left", box=None, padding=(0, 1, 0, 0))
    for name in ("silhouette", "centered", "1-NN", "adj. Rand", "size", "s/model"):
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        if result.metrics is None:
            table.add_row(_title(result.name), *["-"] * 6)
            continue
        cells = [_cell(getattr(result.metrics, name)) for name in METRICS]
        size = f"{_short(result.dimension)}\n[dim]{decimal(int(result.nbytes or 0))}[/dim]"
        table.add_row(_title(result.name), *cells, size, f"{result.seconds:.2f}")
    return table


def missing_notes(results: Sequence[Result]) -> list[str]:
    return [f"{result.name}: {result.missing}" for result in results if result.missing]


def published_table() -> Table:
    """The silhouettes that the paper reports."""
    table = Table("silhouette in the paper (arXiv 2509.04442, its own pools)", "", box=None, pad_edge=False)
    for base, value in PAPER_BASES.items():
        table.add_row(f"delta activations, {base}", f"{value:.3f}")
    for name, value in PAPER_BASELINES.items():
        table.add_row(f"{name}, average of the three", f"{value:.3f}")
    return table


def write_scorecard(folder: Path, pool: Pool, results: Sequence[Result], settings: Mapping[str, Any]) -> None:
    """Write `scorecard.json`, `scorecard.csv` and `vectors/NAME.npz` (names, labels, gram, clusters, vectors)."""
    (folder / "vectors").mkdir(exist_ok=True)
    content = {
        **settings,
        "models": [{"name": name, "label": label} for name, label in zip(pool.names, pool.labels, strict=True)],
        "representations": [result.as_dict() for result in results],
        "published": PUBLISHED,
    }
    write_json(folder / "scorecard.json", content)
    write_csv(folder / "scorecard.csv", [_csv_row(result) for result in results])
    for result in results:
        if result.vectors is not None and result.gram is not None and result.clusters is not None:
            arrays: dict[str, Any] = {
                "names": np.array(pool.names),
                "labels": np.array(pool.labels),
                "clusters": result.clusters,
            }
            arrays |= {"gram": result.gram, **result.vectors.arrays()}
            np.savez(folder / "vectors" / f"{result.name}.npz", **arrays)


def make_folder(folder: Path) -> None:
    """Create the output folder before the measurements start. Raises `InvalidInput` if it is not writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise InvalidInput(f"{folder} cannot be written: {error.strerror or error}.") from error


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a CSV file with the union of the rows' columns, in the order of their first appearance."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _csv_row(result: Result) -> dict[str, Any]:
    row: dict[str, Any] = {"representation": result.name}
    for name in METRICS if result.metrics else ():
        estimate = getattr(result.metrics, name)
        row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    if result.metrics:
        row |= {"clusters": result.metrics.clusters, "noise": result.metrics.noise}
    row |= {"dimension": result.dimension, "bytes": result.nbytes, "seconds": result.seconds, "missing": result.missing}
    return row


def _cell(estimate: Estimate) -> str:
    return f"{estimate.value:.3f}\n[dim]{estimate.low:.2f}…{estimate.high:.2f}[/dim]"


def _short(count: int | None) -> str:
    return f"{count:,}" if count is None or count < 10**6 else f"{count / 10**6:.1f} M"


def _title(name: str) -> str:
    """The name on two lines, so that the table fits into 80 columns."""
    first, _, rest = name.rpartition("_")
    return f"{first}_\n  {rest}"
