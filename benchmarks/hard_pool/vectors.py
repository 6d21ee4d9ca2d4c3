"""Encode fine-tunes into a file with all the representations that the geometries are compared on.

    python -m benchmarks.hard_pool.vectors --base DIR --out FILE.npz FOLDER...

A folder is a fine-tune, or contains several. Models that are already in the file are skipped. Its arrays, for n models:
`names`, `labels` and `settings` (JSON), (n,); `probes` (n, 20, H), `delta_activations` of each generic probe (the first
five are the default set); `weighted` (n, 5, H), `delta_weighted_activations` of those five; `layers` (n, 6, H),
`delta_activations` of the default set at `LAYERS`; `meaning` (n, M), `delta_meaning` of the first probe; `base` (20, H)
and `base_layers` (6, H), the activations of the base.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks.studies.probe_sets import generic_probes
from catalog.errors import CatalogError
from catalog.spaces.probes import ProbeSet
from workers.encoding.encoder import Encoder
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import read_finetune

LAYERS = (12, 15, 18, 21, 24, 27)
DEFAULT = 5  # probes of the default set
STORED = {"probes": np.float16, "weighted": np.float16, "layers": np.float16, "meaning": np.float32}
Arrays = dict[str, np.ndarray]


def main(
    folders: Annotated[list[Path], typer.Argument()],
    base: Annotated[Path, typer.Option(help="Folder of SmolLM2-135M-Instruct.")],
    out: Annotated[Path, typer.Option(help="The npz file; models in it are kept.")],
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Encode the fine-tunes that are not in the file yet."""
    torch.set_num_threads(threads)
    stored = dict(np.load(out)) if out.exists() else {}
    names = set(stored["names"]) if stored else set()
    new_folders = [folder for folder in find_folders(folders) if folder.name not in names]
    if new_folders:
        resident = ResidentBase.load(base, "HuggingFaceTB/SmolLM2-135M-Instruct", "0" * 40)
        write(out, merge_arrays(stored, embed(resident, new_folders)))
    print(f"encoded {len(new_folders)} fine-tunes; {len(names)} were in the file")


def find_folders(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        if (folder / "config.json").exists() or (folder / "adapter_config.json").exists():
            yield folder
        else:
            yield from find_folders(sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."))


def embed(base: ResidentBase, folders: Sequence[Path]) -> Arrays:
    generic = generic_probes()
    single_probes = [ProbeSet(str(number), (prompt,)) for number, prompt in enumerate(generic.prompts)]
    default = ProbeSet("default", generic.prompts[:DEFAULT])
    features = ["delta_activations", "delta_weighted_activations"]
    by_probe = [
        measure(base, probe, features[: 1 + (number < DEFAULT)], folders) for number, probe in enumerate(single_probes)
    ]
    by_layer = [measure(base, default, features[:1], folders, layer) for layer in LAYERS]
    meaning, _ = measure(base, single_probes[0], ["delta_meaning"], folders)
    vectors = {
        "probes": np.stack([rows["delta_activations"] for rows, _ in by_probe], 1),
        "weighted": np.stack([rows["delta_weighted_activations"] for rows, _ in by_probe[:DEFAULT]], 1),
        "layers": np.stack([rows["delta_activations"] for rows, _ in by_layer], 1),
        "meaning": meaning["delta_meaning"],
    }
    descriptions = [describe(folder) for folder in folders]
    return {
        "names": np.array([folder.name for folder in folders]),
        "labels": np.array([label for label, _ in descriptions]),
        "settings": np.array([settings for _, settings in descriptions]),
        **{name: array.astype(STORED[name]) for name, array in vectors.items()},
        "base": np.stack([table["delta_activations"].mean(0) for _, table in by_probe]).astype(np.float32),
        "base_layers": np.stack([table["delta_activations"].mean(0) for _, table in by_layer]).astype(np.float32),
    }


def measure(
    base: ResidentBase, probes: ProbeSet, features: list[str], folders: Sequence[Path], layer: int = -1
) -> tuple[Arrays, Arrays]:
    """The vectors (n, d) of the fine-tunes and the table (N, d) of the base, by feature."""
    encoder = Encoder(base, probes, features, layer=layer)
    tables = encoder.measure_base()
    encodings = encoder.encode([read_finetune(folder) for folder in folders])
    for folder, encoding in zip(folders, encodings, strict=True):
        if isinstance(encoding, CatalogError):
            raise SystemExit(f"{folder.name}: {encoding}")
    vectors = {
        name: np.stack([encoding.vectors[name] for encoding in encodings if not isinstance(encoding, CatalogError)])
        for name in features
    }
    return vectors, tables


def describe(folder: Path) -> tuple[str, str]:
    """The label and the settings of a fine-tune, from its training report, or from its name in the example pool."""
    report = folder / "training.json"
    if report.exists():
        recipe = json.loads(report.read_text())
        return recipe["recipe"]["label"], json.dumps(recipe)
    return folder.name.split("-")[-2], "{}"


def merge_arrays(stored: Arrays, new: Arrays) -> Arrays:
    if not stored:
        return new
    order = np.argsort(np.concatenate([stored["names"], new["names"]]))
    per_model = ("names", "labels", "settings", *STORED)
    return {
        name: np.concatenate([stored[name], new[name]])[order] if name in per_model else stored[name] for name in new
    }


def write(path: Path, arrays: Arrays) -> None:
    unfinished = path.with_name(f".{path.name}.unfinished.npz")
    np.savez_compressed(unfinished, **arrays)  # type: ignore[arg-type]
    unfinished.rename(path)


if __name__ == "__main__":
    typer.run(main)
