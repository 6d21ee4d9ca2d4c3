"""How many probes it takes: 1 to 20, in the set's order and in random choices."""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.studies import plots
from benchmarks.studies.study import Study
from catalog.errors import InvalidProbeSet
from catalog.spaces.probes import ProbeSet
from workers.encoding.encoder import Encoder
from workers.encoding.resident_base import ResidentBase
from workers.evaluation import measures
from workers.evaluation.pool import Pool, Progress
from workers.evaluation.representations.delta import encode

CHOICES = 50  # random choices of each size
SEED = 0
MEANS = ("delta_activations", "delta_weighted_activations", "delta_logits")  # features that average over probes


def study_probes(
    pool: Pool, base: ResidentBase, probes: ProbeSet, feature: str, batch: int, progress: Progress
) -> Study:
    """Every probe's own vectors are measured once; a set's vector is their mean. Raises `InvalidProbeSet`."""
    if feature not in MEANS:
        raise InvalidProbeSet(f"{feature} has coordinates of its own for every probe; choose from {', '.join(MEANS)}.")
    alone = []  # P of (n, d)
    for number, prompt in enumerate(probes.prompts):
        encoder = Encoder(base, ProbeSet(f"{probes.name}/{number}", (prompt,)), [feature])
        alone.append(encode(pool, encoder, feature, batch, lambda *_: None))
        progress("probes", number + 1, len(probes.prompts))
    rows = probe_rows(np.stack(alone), pool)
    x = [int(row["probes"]) for row in rows]
    curves = {name: [row[name] for row in rows] for name in ("mean of choices", "in order")}
    band = [row["low"] for row in rows], [row["high"] for row in rows]
    draw = partial(
        plots.plot_curves, title="silhouette by number of probes", x=x, curves=curves, axis="probes", band=band
    )
    settings = {"feature": feature, "probe_set": probes.name, "sha256": probes.sha256, "choices": CHOICES, "seed": SEED}
    return Study("probes", rows, draw, settings)


def probe_rows(alone: np.ndarray, pool: Pool) -> list[dict[str, float]]:
    """For each size of set the silhouette of the first so many and the mean, 5th and 95th percentile of random
    choices, and their mean 1-NN accuracy. `alone` is (P, n, d), each probe's vectors.
    """
    generator = np.random.default_rng(SEED)
    rows = []
    for size in range(1, len(alone) + 1):
        chosen = [generator.choice(len(alone), size, replace=False) for _ in range(CHOICES)]
        found = np.array([_figures(alone[each].mean(axis=0), pool) for each in chosen])  # (choices, 2)
        low, high = np.quantile(found[:, 0], [0.05, 0.95])
        row = {"probes": size, "in order": _figures(alone[:size].mean(axis=0), pool)[0]}
        row |= {"mean of choices": float(found[:, 0].mean()), "low": float(low), "high": float(high)}
        rows.append({**row, "nearest": float(found[:, 1].mean())})
    return rows


def _figures(vectors: np.ndarray, pool: Pool) -> tuple[float, float]:
    wide = vectors.astype(np.float64)
    distance = measures.distances(wide @ wide.T)
    return measures.silhouette(distance, pool.class_indices), measures.nearest_accuracy(distance, pool.class_indices)
