"""The vectors that a file of `vectors.py` holds, in all the ways that they can be put together."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.hard_pool.vectors import DEFAULT, LAYERS

FOLDER = Path(__file__).parent
MIDDLE = LAYERS.index(12)  # two fifths of thirty
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Embedded:
    """n models of one file."""

    names: NDArray[np.str_]
    labels: NDArray[np.str_]
    settings: list[dict[str, Any]]
    arrays: dict[str, Floats]
    own_norms: Floats  # (7,), of the base's mean state at `LAYERS` and after the final norm, default probes

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Labels as numbers, (n,)."""
        return np.unique(self.labels, return_inverse=True)[1]

    def those(self, chosen: NDArray[np.bool_]) -> Embedded:
        settings = [each for each, wanted in zip(self.settings, chosen, strict=True) if wanted]
        arrays = {name: array[chosen] for name, array in self.arrays.items()}
        return Embedded(self.names[chosen], self.labels[chosen], settings, arrays, self.own_norms)


def read(path: Path) -> Embedded:
    with np.load(path) as held:
        arrays = {name: held[name].astype(np.float32) for name in ("probes", "weighted", "layers", "meaning")}
        settings = [json.loads(text) for text in held["settings"]]
        own = np.concatenate([held["base_layers"], held["base"][None, :DEFAULT].mean(axis=1)])
        return Embedded(held["names"], held["labels"], settings, arrays, np.linalg.norm(own, axis=1))


def hard() -> tuple[Embedded, Embedded]:
    """The adapters tuned by supervision, and those by preference."""
    pool = read(FOLDER / "hard.npz")
    preferred = np.char.startswith(pool.labels, "prefers-")
    return pool.those(~preferred), pool.those(preferred)


def easy() -> Embedded:
    return read(FOLDER / "easy.npz")


def representations(pool: Embedded) -> dict[str, Floats]:
    """By name, (n, d). `delta_activations`, five probes after the final norm, is the plain one."""
    probes, layers, weighted, meaning = (pool.arrays[name] for name in ("probes", "layers", "weighted", "meaning"))
    plain = probes[:, :DEFAULT].mean(axis=1)
    found = {
        "delta_activations": plain,
        "1 probe": probes[:, 0],
        "10 probes": probes[:, :10].mean(axis=1),
        "20 probes": probes.mean(axis=1),
        "unit probes": unit(probes[:, :DEFAULT]).mean(axis=1),
        "probes side by side": probes[:, :DEFAULT].reshape(len(probes), -1),
        "delta_weighted_activations": weighted.mean(axis=1),
        "delta_meaning": meaning,
    }
    found |= {f"layer {layer}": layers[:, place] for place, layer in enumerate(LAYERS)}
    middle, own = layers[:, MIDDLE], pool.own_norms
    found["delta_layers"] = np.concatenate([middle / own[MIDDLE], plain / own[-1]], axis=1)
    found["delta_layers, halves of length 1"] = concatenate_units(middle, plain)
    found["layers side by side"] = concatenate_units(*(layers[:, place] for place in range(len(LAYERS))), plain)
    found["layers 21, 24, 27, 30"] = concatenate_units(*(layers[:, place] for place in (3, 4, 5)), plain)
    found["last and weighted"] = concatenate_units(plain, weighted.mean(axis=1))
    found["activations and meaning"] = concatenate_units(plain, meaning)
    return found


def concatenate_units(*parts: Floats) -> Floats:
    """Each part at length 1, one after the other."""
    return np.concatenate([unit(part) for part in parts], axis=1)


def unit(vectors: Floats) -> Floats:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
