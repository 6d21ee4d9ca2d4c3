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
from workers.evaluation.scorecard import PAPERS_BASELINES, PAPERS_BASES, PUBLISHED, Figure, Line

MEASURES = ("silhouette", "silhouette_centred", "nearest", "adjusted_rand")


def scorecard_table(lines: Sequence[Line]) -> Table:
    """Every measure with its 95% interval below it."""
    table = Table("representation", title="measured on your pool", title_justify="left", box=None, padding=(0, 1, 0, 0))
    for name in ("silhouette", "centred", "1-NN", "adj. Rand", "size", "s/model"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        if line.figures is None:
            table.add_row(_title(line.name), *["-"] * 6)
            continue
        cells = [_cell(getattr(line.figures, name)) for name in MEASURES]
        size = f"{_short(line.dimension)}\n[dim]{decimal(int(line.nbytes or 0))}[/dim]"
        table.add_row(_title(line.name), *cells, size, f"{line.seconds:.2f}")
    return table


def missing_notes(lines: Sequence[Line]) -> list[str]:
    return [f"{line.name}: {line.missing}" for line in lines if line.missing]


def published_table() -> Table:
    """The paper's silhouettes, called the paper's."""
    table = Table("silhouette in the paper (arXiv 2509.04442, its own pools)", "", box=None, pad_edge=False)
    for base, value in PAPERS_BASES.items():
        table.add_row(f"delta activations, {base}", f"{value:.3f}")
    for name, value in PAPERS_BASELINES.items():
        table.add_row(f"{name}, average of the three", f"{value:.3f}")
    return table


def write_scorecard(folder: Path, pool: Pool, lines: Sequence[Line], how: Mapping[str, Any]) -> None:
    """`scorecard.json`, `scorecard.csv` and `vectors/NAME.npz` (names, labels, gram, clusters and the vectors)."""
    (folder / "vectors").mkdir(exist_ok=True)
    content = {
        **how,
        "models": [{"name": name, "label": label} for name, label in zip(pool.names, pool.labels, strict=True)],
        "representations": [line.as_dict() for line in lines],
        "published": PUBLISHED,
    }
    write_json(folder / "scorecard.json", content)
    write_csv(folder / "scorecard.csv", [_flat(line) for line in lines])
    for line in lines:
        if line.vectors is not None and line.gram is not None and line.assigned is not None:
            stored: dict[str, Any] = {
                "names": np.array(pool.names),
                "labels": np.array(pool.labels),
                "clusters": line.assigned,
            }
            stored |= {"gram": line.gram, **line.vectors.arrays()}
            np.savez(folder / "vectors" / f"{line.name}.npz", **stored)


def make_folder(folder: Path) -> None:
    """Raises `InvalidInput` where it cannot be: before minutes of work, not after."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise InvalidInput(f"{folder} cannot be written: {error.strerror or error}.") from error


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The columns are those of all rows, in the order in which they first come."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _flat(line: Line) -> dict[str, Any]:
    row: dict[str, Any] = {"representation": line.name}
    for name in MEASURES if line.figures else ():
        figure = getattr(line.figures, name)
        row |= {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
    if line.figures:
        row |= {"clusters": line.figures.clusters, "noise": line.figures.noise}
    row |= {"dimension": line.dimension, "bytes": line.nbytes, "seconds": line.seconds, "missing": line.missing}
    return row


def _cell(figure: Figure) -> str:
    return f"{figure.value:.3f}\n[dim]{figure.low:.2f}…{figure.high:.2f}[/dim]"


def _short(count: int | None) -> str:
    return f"{count:,}" if count is None or count < 10**6 else f"{count / 10**6:.1f} M"


def _title(name: str) -> str:
    """On two lines, so that the table fits into 80 columns."""
    first, _, rest = name.rpartition("_")
    return f"{first}_\n  {rest}"
