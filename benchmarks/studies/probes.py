"""The effect of the number of probes, from 1 to 20, in the order of the set and in random subsets."""

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

SUBSETS = 50  # random subsets of each size
SEED = 0
AVERAGED = (
    "delta_activations",
    "delta_weighted_activations",
    "delta_logits",
)  # features that are means over the probes


def study_probes(
    pool: Pool, base: ResidentBase, probes: ProbeSet, feature: str, batch: int, progress: Progress
) -> Study:
    """Measure the vectors of each probe once; the vectors of a set are their means.

    Raises `InvalidProbeSet` for a feature that is not a mean over the probes.
    """
    if feature not in AVERAGED:
        raise InvalidProbeSet(f"{feature} is not a mean over the probes. Choose from {', '.join(AVERAGED)}.")
    by_probe = []  # P of (n, d)
    for number, prompt in enumerate(probes.prompts):
        encoder = Encoder(base, ProbeSet(f"{probes.name}/{number}", (prompt,)), [feature])
        by_probe.append(encode(pool, encoder, feature, batch, lambda *_: None))
        progress("probes", number + 1, len(probes.prompts))
    rows = probe_rows(np.stack(by_probe), pool)
    x = [int(row["probes"]) for row in rows]
    curves = {name: [row[name] for row in rows] for name in ("mean of choices", "in order")}
    band = [row["low"] for row in rows], [row["high"] for row in rows]
    draw = partial(
        plots.plot_curves, title="silhouette by number of probes", x=x, curves=curves, axis="probes", band=band
    )
    settings = {"feature": feature, "probe_set": probes.name, "sha256": probes.sha256, "choices": SUBSETS, "seed": SEED}
    return Study("probes", rows, draw, settings)


def probe_rows(by_probe: np.ndarray, pool: Pool) -> list[dict[str, float]]:
    """A row per size of the probe set, from the vectors of each probe, (P, n, d).

    `in order` is the silhouette of the first `probes` probes. `mean of choices`, `low` and `high` are the mean, the 5th
    and the 95th percentile over random subsets, and `nearest` is their mean 1-NN accuracy.
    """
    generator = np.random.default_rng(SEED)
    rows = []
    for size in range(1, len(by_probe) + 1):
        subsets = [generator.choice(len(by_probe), size, replace=False) for _ in range(SUBSETS)]
        scores = np.array([_score(by_probe[subset].mean(axis=0), pool) for subset in subsets])  # (subsets, 2)
        low, high = np.quantile(scores[:, 0], [0.05, 0.95])
        row = {"probes": size, "in order": _score(by_probe[:size].mean(axis=0), pool)[0]}
        row |= {"mean of choices": float(scores[:, 0].mean()), "low": float(low), "high": float(high)}
        rows.append({**row, "nearest": float(scores[:, 1].mean())})
    return rows


def _score(vectors: np.ndarray, pool: Pool) -> tuple[float, float]:
    """Silhouette and 1-NN accuracy."""
    wide = vectors.astype(np.float64)
    distance = measures.distances(wide @ wide.T)
    return measures.silhouette(distance, pool.class_indices), measures.nearest_accuracy(distance, pool.class_indices)
