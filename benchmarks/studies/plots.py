"""Plots of studies: curves and bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workers.evaluation.plots import new_figure, save


def plot_curves(
    path: Path, title: str, x: Sequence[Any], curves: Mapping[str, Sequence[float]], axis: str,
    band: tuple[Sequence[float], Sequence[float]] | None = None,
) -> None:  # fmt: skip
    """Plot curves over x; `band` has the lower and the upper limit of the first curve."""
    figure = new_figure(6.4, 4)
    axes = figure.subplots()
    for name, values in curves.items():
        axes.plot(x, values, marker="o", markersize=3.5, label=name)
    if band:
        axes.fill_between(x, *band, alpha=0.2)
    axes.set(title=title, xlabel=axis)
    axes.legend()
    axes.grid(alpha=0.3)
    save(figure, path)


def plot_bars(path: Path, title: str, groups: Sequence[str], bars: Mapping[str, Sequence[float]]) -> None:
    """Plot grouped bars."""
    figure = new_figure(7.5, 4)
    axes = figure.subplots()
    width = 0.8 / len(bars)
    for number, (name, values) in enumerate(bars.items()):
        axes.bar(np.arange(len(groups)) + (number - (len(bars) - 1) / 2) * width, values, width, label=name)
    axes.set_xticks(range(len(groups)), groups, rotation=15, ha="right")
    axes.set_title(title)
    axes.legend(fontsize=8)
    axes.grid(axis="y", alpha=0.3)
    save(figure, path)
