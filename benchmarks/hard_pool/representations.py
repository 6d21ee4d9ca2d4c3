"""The representations that the vectors in a file of `vectors.py` can be combined to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.hard_pool.vectors import DEFAULT, LAYERS

FOLDER = Path(__file__).parent
MIDDLE = LAYERS.index(12)  # two fifths of the thirty layers
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Embedded:
    """The n models of one file."""

    names: NDArray[np.str_]
    labels: NDArray[np.str_]
    settings: list[dict[str, Any]]
    arrays: dict[str, Floats]
    base_norms: Floats  # (7,), norms of the base's mean state at `LAYERS` and after the final norm, default probes

    @property
    def class_indices(self) -> NDArray[np.int64]:
        """The index of each label among the sorted labels, (n,)."""
        return np.unique(self.labels, return_inverse=True)[1]

    def select(self, mask: NDArray[np.bool_]) -> Embedded:
        settings = [settings for settings, selected in zip(self.settings, mask, strict=True) if selected]
        arrays = {name: array[mask] for name, array in self.arrays.items()}
        return Embedded(self.names[mask], self.labels[mask], settings, arrays, self.base_norms)


def read(path: Path) -> Embedded:
    with np.load(path) as stored:
        arrays = {name: stored[name].astype(np.float32) for name in ("probes", "weighted", "layers", "meaning")}
        settings = [json.loads(text) for text in stored["settings"]]
        base = np.concatenate([stored["base_layers"], stored["base"][None, :DEFAULT].mean(axis=1)])
        return Embedded(stored["names"], stored["labels"], settings, arrays, np.linalg.norm(base, axis=1))


def hard() -> tuple[Embedded, Embedded]:
    """The supervised fine-tunes, and those tuned on preferences."""
    pool = read(FOLDER / "hard.npz")
    preferred = np.char.startswith(pool.labels, "prefers-")
    return pool.select(~preferred), pool.select(preferred)


def easy() -> Embedded:
    return read(FOLDER / "easy.npz")


def representations(pool: Embedded) -> dict[str, Floats]:
    """The vectors (n, d) of each representation. `delta_activations` (five probes, after the final norm) is plain."""
    probes, layers, weighted, meaning = (pool.arrays[name] for name in ("probes", "layers", "weighted", "meaning"))
    plain = probes[:, :DEFAULT].mean(axis=1)
    combined = {
        "delta_activations": plain,
        "1 probe": probes[:, 0],
        "10 probes": probes[:, :10].mean(axis=1),
        "20 probes": probes.mean(axis=1),
        "unit probes": unit(probes[:, :DEFAULT]).mean(axis=1),
        "probes side by side": probes[:, :DEFAULT].reshape(len(probes), -1),
        "delta_weighted_activations": weighted.mean(axis=1),
        "delta_meaning": meaning,
    }
    combined |= {f"layer {layer}": layers[:, index] for index, layer in enumerate(LAYERS)}
    middle, norms = layers[:, MIDDLE], pool.base_norms
    combined["delta_layers"] = np.concatenate([middle / norms[MIDDLE], plain / norms[-1]], axis=1)
    combined["delta_layers, halves of length 1"] = concatenate_units(middle, plain)
    combined["layers side by side"] = concatenate_units(*(layers[:, index] for index in range(len(LAYERS))), plain)
    combined["layers 21, 24, 27, 30"] = concatenate_units(*(layers[:, index] for index in (3, 4, 5)), plain)
    combined["last and weighted"] = concatenate_units(plain, weighted.mean(axis=1))
    combined["activations and meaning"] = concatenate_units(plain, meaning)
    return combined


def concatenate_units(*parts: Floats) -> Floats:
    """Concatenate the parts, each normalized to length 1."""
    return np.concatenate([unit(part) for part in parts], axis=1)


def unit(vectors: Floats) -> Floats:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
