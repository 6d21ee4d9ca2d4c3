"""What one setting of the encoder does to the measures: the kind of probe, the layer, the dtype."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.studies import plots
from benchmarks.studies.probe_sets import probe_kinds
from benchmarks.studies.study import SHOWN_METRICS, Study, metric_columns
from catalog.spaces.probes import ProbeSet
from workers.encoding.encoder import Encoder, resolve_layer
from workers.encoding.resident_base import ResidentBase
from workers.evaluation.pool import Pool, Progress
from workers.evaluation.representations.delta import encode

FRACTIONS = tuple(tenths / 10 for tenths in range(1, 11))


def study_kinds(pool: Pool, base: ResidentBase, feature: str, batch: int, progress: Progress) -> Study:
    """Measure a feature with generic requests, requests from domains, plain text and single words."""
    rows = []
    for number, (kind, probes) in enumerate(probe_kinds().items()):
        progress(kind, number, 4)
        vectors, seconds = _timed(Encoder(base, probes, [feature]), pool, feature, batch)
        rows.append({"kind": kind, **metric_columns(vectors, pool), "norm": _norm(vectors), "seconds": seconds})
    bars = {name: [row[name] for row in rows] for name in SHOWN_METRICS}
    draw = partial(
        plots.plot_bars, title=f"{feature} by kind of probe", groups=[row["kind"] for row in rows], bars=bars
    )
    return Study("kinds", rows, draw, {"feature": feature}, ("kind", *SHOWN_METRICS, "norm", "seconds"))


def study_layers(
    pool: Pool,
    base: ResidentBase,
    probes: ProbeSet,
    feature: str,
    layers: Sequence[int | float],
    batch: int,
    progress: Progress,
) -> Study:
    """Measure a feature at several layers: indices into `hidden_states`, or fractions of the depth."""
    rows: list[dict[str, Any]] = []
    indices = sorted({resolve_layer(layer, base.layers) % (base.layers + 1) for layer in layers})
    for number, layer in enumerate(indices):
        progress(f"layer {layer}", number, len(indices))
        vectors, seconds = _timed(Encoder(base, probes, [feature], layer=layer), pool, feature, batch)
        rows.append({"layer": layer, **metric_columns(vectors, pool), "norm": _norm(vectors), "seconds": seconds})
    x, curves = [row["layer"] for row in rows], {name: [row[name] for row in rows] for name in SHOWN_METRICS}
    axis = f"layer (of {base.layers}; the last is after the final norm)"
    draw = partial(plots.plot_curves, title=f"{feature} by layer", x=x, curves=curves, axis=axis)
    settings = {"feature": feature, "probe_set": probes.name, "sha256": probes.sha256}
    return Study("layers", rows, draw, settings, ("layer", *SHOWN_METRICS, "norm", "seconds"))


def study_dtypes(
    pool: Pool, load: Callable[[str], ResidentBase], probes: ProbeSet, feature: str, dtypes: Sequence[str],
    batch: int, progress: Progress,
) -> Study:  # fmt: skip
    """Measure a feature with the base in several dtypes, and the cosine of each vector to that in float32."""
    measured = {}
    for number, dtype in enumerate(dict.fromkeys(("float32", *dtypes))):
        progress(dtype, number, len(dtypes))
        measured[dtype] = _timed(Encoder(load(dtype), probes, [feature]), pool, feature, batch)
    exact = _unit(measured["float32"][0])
    rows = []
    for dtype, (vectors, seconds) in measured.items():
        cosines = (_unit(vectors) * exact).sum(axis=1)
        row = {"dtype": dtype, **metric_columns(vectors, pool), "least_cosine": float(cosines.min())}
        rows.append({**row, "mean_cosine": float(cosines.mean()), "seconds": seconds})
    bars = {name: [row[name] for row in rows] for name in (*SHOWN_METRICS, "least_cosine")}
    draw = partial(plots.plot_bars, title=f"{feature} by dtype", groups=list(measured), bars=bars)
    settings = {"feature": feature, "probe_set": probes.name, "sha256": probes.sha256}
    return Study("dtype", rows, draw, settings, ("dtype", *SHOWN_METRICS, "least_cosine", "seconds"))


def _timed(encoder: Encoder, pool: Pool, feature: str, batch: int) -> tuple[np.ndarray, float]:
    """The vectors, (n, d), and the seconds per model, without measuring the base."""
    encoder.measure_base()
    started = time.monotonic()
    vectors = encode(pool, encoder, feature, batch, lambda *_: None)
    return vectors, (time.monotonic() - started) / len(pool)


def _norm(vectors: np.ndarray) -> float:
    return float(np.linalg.norm(vectors, axis=1).mean())


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)
