"""Figures: silhouettes and a t-SNE map of each representation."""

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
    """A figure of so many inches that no window is opened for; raises `MissingExtra`."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("No matplotlib: plots need `pip install 'deltadex[evaluate]'`.") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)


def plot_representation(path: Path, name: str, pool: Pool, gram: Floats) -> None:
    """Every model's silhouette by label, beside a t-SNE map of the same distances."""
    distance = measures.distances(gram)
    figure = new_figure(10, 4.2)
    left, right = figure.subplots(1, 2)
    _draw_silhouettes(left, measures.silhouettes(distance, pool.numbers), pool)
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
    at = 0
    for number, label in enumerate(pool.groups):
        own = np.sort(values[pool.numbers == number])
        axes.barh(np.arange(at, at + len(own)), own, height=0.9, color=f"C{number % 10}")
        axes.text(min(0.0, values.min()) - 0.02, at + (len(own) - 1) / 2, label, ha="right", va="center", fontsize=8)
        at += len(own) + 1
    axes.axvline(values.mean(), color="black", linewidth=0.8, linestyle="--")
    axes.set(title=f"silhouettes, mean {values.mean():.3f}", xlim=(min(0.0, values.min()) - 0.35, 1), yticks=[])


def _draw_map(axes: Any, places: np.ndarray, pool: Pool) -> None:
    for number, label in enumerate(pool.groups):
        own = places[pool.numbers == number]
        axes.scatter(own[:, 0], own[:, 1], color=f"C{number % 10}", label=label, s=28)
    axes.set(title="t-SNE map", xticks=[], yticks=[])
    axes.legend(fontsize=7)
