"""The plots in docs/representation.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from benchmarks.geometries import denoised
from benchmarks.hard_pool.representations import Embedded, Floats, hard, representations
from workers.evaluation import measures

mpl.use("Agg")
DPI = 110


def draw(folder: Path, rows: Sequence[Any]) -> None:
    """Write all plots into a folder; `rows` are those of `benchmarks.geometry`."""
    folder.mkdir(parents=True, exist_ok=True)
    pool, _ = hard()
    layers = representations(pool)["delta_layers"]
    plain = next(row.held_out for row in rows if (row.representation, row.family) == ("delta_activations", "raw"))
    layer_rows = [row for row in rows if row.representation == "delta_layers, halves of length 1"]
    families(folder / "representation-families.png", layer_rows, plain)
    cosines(folder / "representation-cosines.png", pool, denoised(layers, blocks=2).apply(layers))
    norms(folder / "representation-norms.png", pool)


def families(path: Path, rows: Sequence[Any], plain: float) -> None:
    """Plot the held-out silhouette of every family on one representation."""
    rows = sorted(rows, key=lambda row: row.held_out)
    figure, axes = plt.subplots(figsize=(7, 0.36 * len(rows) + 1), layout="constrained")
    positions = np.arange(len(rows))
    axes.barh(positions + 0.2, [row.held_out for row in rows], 0.4, label="held-out domains", color="#3b6ea5")
    axes.barh(
        positions - 0.2,
        [row.new for row in rows],
        0.4,
        label="domains that the geometry was not fitted to",
        color="#b8cde3",
    )
    axes.axvline(plain, color="black", linewidth=1)
    axes.axvline(plain + (1 - plain) / 3, color="black", linewidth=1, linestyle=":")
    axes.set_yticks(positions, [row.family.replace("_", " ") for row in rows])
    axes.set_xlabel("silhouette on the harder pool; line: plain delta_activations, dotted: the goal")
    figure.legend(loc="outside upper center", ncols=2)
    save(figure, path)


def cosines(path: Path, pool: Embedded, moved: Floats) -> None:
    """Plot the cosines of all pairs, sorted by label, before and after a geometry."""
    order = np.argsort(pool.labels, kind="stable")
    plain = representations(pool)["delta_activations"][order]
    figure, axes = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    for panel, vectors, name in zip(
        axes, (plain, moved[order]), ("delta_activations", "delta_layers, denoised"), strict=True
    ):
        wide = vectors.astype(np.float64)
        image = panel.imshow(measures.cosines(wide @ wide.T), vmin=-1, vmax=1, cmap="RdBu_r")
        panel.set_title(name)
        panel.set_yticks(*_ticks(pool.labels[order]))
        panel.set_xticks([])
    axes[1].set_yticks([])
    figure.colorbar(image, ax=axes)
    save(figure, path)


def norms(path: Path, pool: Embedded) -> None:
    """Plot the norms of the vectors by learning rate times steps, and by the kind of fine-tune."""
    lengths = np.linalg.norm(representations(pool)["delta_activations"], axis=1)
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    kinds = np.array([settings["recipe"]["kind"] for settings in pool.settings])
    work = np.array([settings["recipe"]["rate"] * settings["steps"] for settings in pool.settings])
    for kind in np.unique(kinds):
        axes.scatter(work[kinds == kind], lengths[kinds == kind], label=kind)
    axes.set(xscale="log", yscale="log", xlabel="learning rate x steps", ylabel="norm of delta_activations")
    axes.legend()
    save(figure, path)


def _ticks(labels: Floats) -> tuple[list[float], list[str]]:
    names, first, counts = np.unique(labels, return_index=True, return_counts=True)
    return (first + (counts - 1) / 2).tolist(), names.tolist()


def save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
