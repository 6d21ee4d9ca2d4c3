"""Plots: the silhouettes and a t-SNE map of each representation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from catalog.errors import MissingExtra
from workers.evaluation import measures
from workers.evaluation.measures import Floats
from workers.evaluation.pool import Pool

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 100


def new_figure(width: float, height: float) -> Figure:
    """A figure of the given size in inches, without a window. Raises `MissingExtra` if matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("Plots need matplotlib: run `pip install 'deltadex[evaluate]'`.") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)


def plot_representation(path: Path, name: str, pool: Pool, gram: Floats) -> None:
    """Draw every model's silhouette, grouped by label, next to a t-SNE map of the same distances."""
    distance = measures.distances(gram)
    figure = new_figure(10, 4.2)
    left, right = figure.subplots(1, 2)
    _draw_silhouettes(left, measures.silhouettes(distance, pool.class_indices), pool)
    _draw_map(right, tsne(distance), pool)
    figure.suptitle(name)
    save(figure, path)


def tsne(distance: Floats) -> np.ndarray:
    """A layout of n models, (n, 2) (van der Maaten and Hinton 2008), from their distances."""
    from sklearn.manifold import TSNE

    perplexity = max(1.0, min(30.0, (len(distance) - 1) / 3))
    layout = TSNE(metric="precomputed", init="random", perplexity=perplexity, random_state=0)
    return np.asarray(layout.fit_transform(distance))


def _draw_silhouettes(axes: Any, values: Floats, pool: Pool) -> None:
    bottom = 0
    for number, label in enumerate(pool.classes):
        widths = np.sort(values[pool.class_indices == number])
        axes.barh(np.arange(bottom, bottom + len(widths)), widths, height=0.9, color=f"C{number % 10}")
        middle = bottom + (len(widths) - 1) / 2
        axes.text(min(0.0, values.min()) - 0.02, middle, label, ha="right", va="center", fontsize=8)
        bottom += len(widths) + 1
    axes.axvline(values.mean(), color="black", linewidth=0.8, linestyle="--")
    axes.set(title=f"silhouettes, mean {values.mean():.3f}", xlim=(min(0.0, values.min()) - 0.35, 1), yticks=[])


def _draw_map(axes: Any, coordinates: np.ndarray, pool: Pool) -> None:
    for number, label in enumerate(pool.classes):
        points = coordinates[pool.class_indices == number]
        axes.scatter(points[:, 0], points[:, 1], color=f"C{number % 10}", label=label, s=28)
    axes.set(title="t-SNE map", xticks=[], yticks=[])
    axes.legend(fontsize=7)
