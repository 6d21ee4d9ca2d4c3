"""The result of a study, and the metrics that all studies report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from workers.evaluation import measures, report
from workers.evaluation.bootstrap import RESAMPLES
from workers.evaluation.pool import Pool
from workers.evaluation.scorecard import compute_metrics

MIN_CLUSTER_SIZE = 3  # models, as in the scorecard


@dataclass(frozen=True)
class Study:
    """The rows of a table, and the function that plots them."""

    name: str
    rows: Sequence[Mapping[str, Any]]
    draw: Callable[[Path], None] = field(repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict)
    shown: Sequence[str] | None = None  # columns of the printed table; default: all

    def table(self) -> Table:
        columns = list(self.shown or self.rows[0])
        table = Table(title=self.name, title_justify="left", box=None, padding=(0, 1, 0, 0))
        for column in columns:
            table.add_column(column, justify="left" if isinstance(self.rows[0][column], str) else "right", no_wrap=True)
        for row in self.rows:
            table.add_row(*(_cell(row[column], 5 if "cosine" in column else 3) for column in columns))
        return table

    def as_dict(self) -> dict[str, Any]:
        return {**self.settings, "rows": list(self.rows)}

    def write(self, folder: Path) -> None:
        """Write `NAME.csv`, `NAME.json` and `NAME.png`."""
        report.write_csv(folder / f"{self.name}.csv", self.rows)
        report.write_json(folder / f"{self.name}.json", self.as_dict())
        self.draw(folder / f"{self.name}.png")


SHOWN_METRICS = ("silhouette", "centered", "nearest", "adjusted_rand")  # the printed ones of `metric_columns`


def metric_columns(rows: np.ndarray, pool: Pool) -> dict[str, Any]:
    """The metrics of the scorecard for vectors, (n, d), as columns."""
    wide = rows.astype(np.float64)
    gram = wide @ wide.T
    metrics = compute_metrics(gram, pool.class_indices, measures.density_clusters(gram, MIN_CLUSTER_SIZE), RESAMPLES, 0)
    return {
        "silhouette": metrics.silhouette.value,
        "silhouette_low": metrics.silhouette.low,
        "silhouette_high": metrics.silhouette.high,
        "centered": metrics.silhouette_centered.value,
        "nearest": metrics.nearest.value,
        "adjusted_rand": metrics.adjusted_rand.value,
    }


def _cell(value: Any, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)
