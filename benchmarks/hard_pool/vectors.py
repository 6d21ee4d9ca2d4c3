"""Embeds folders of fine-tunes into one file of all the representations that the geometry is studied on.

    python -m benchmarks.hard_pool.vectors --base DIR --out FILE.npz FOLDER...

A folder is a fine-tune's own, or holds several. What FILE holds already is not embedded again. In it, for n models:
`names`, `labels` and `settings` (JSON) (n,); `probes` (n, 20, H), `delta_activations` of every generic probe alone, the
first five of which are the default set; `weighted` (n, 5, H), `delta_weighted_activations` of those five; `layers`
(n, 6, H), `delta_activations` of the default set at `LAYERS`; `meaning` (n, M), `delta_meaning` of the first probe;
`base` (20, H) and `base_layers` (6, H), the base's own activations.
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
    out: Annotated[Path, typer.Option(help="The npz; what it holds already is kept.")],
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Embeds what is not in the file yet."""
    torch.set_num_threads(threads)
    held = dict(np.load(out)) if out.exists() else {}
    known = set(held["names"]) if held else set()
    found = [folder for folder in find_folders(folders) if folder.name not in known]
    if found:
        resident = ResidentBase.load(base, "HuggingFaceTB/SmolLM2-135M-Instruct", "0" * 40)
        write(out, merge_arrays(held, embed(resident, found)))
    print(f"{len(found)} embedded, {len(known)} were there")


def find_folders(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        if (folder / "config.json").exists() or (folder / "adapter_config.json").exists():
            yield folder
        else:
            yield from find_folders(sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."))


def embed(base: ResidentBase, folders: Sequence[Path]) -> Arrays:
    generic = generic_probes()
    first = [ProbeSet(str(number), (prompt,)) for number, prompt in enumerate(generic.prompts)]
    default = ProbeSet("default", generic.prompts[:DEFAULT])
    both = ["delta_activations", "delta_weighted_activations"]
    alone = [measure(base, probe, both[: 1 + (place < DEFAULT)], folders) for place, probe in enumerate(first)]
    deep = [measure(base, default, both[:1], folders, layer) for layer in LAYERS]
    meaning, _ = measure(base, first[0], ["delta_meaning"], folders)
    vectors = {
        "probes": np.stack([each["delta_activations"] for each, _ in alone], 1),
        "weighted": np.stack([each["delta_weighted_activations"] for each, _ in alone[:DEFAULT]], 1),
        "layers": np.stack([each["delta_activations"] for each, _ in deep], 1),
        "meaning": meaning["delta_meaning"],
    }
    notes = [describe(folder) for folder in folders]
    return {
        "names": np.array([folder.name for folder in folders]),
        "labels": np.array([label for label, _ in notes]),
        "settings": np.array([settings for _, settings in notes]),
        **{name: array.astype(STORED[name]) for name, array in vectors.items()},
        "base": np.stack([table["delta_activations"].mean(0) for _, table in alone]).astype(np.float32),
        "base_layers": np.stack([table["delta_activations"].mean(0) for _, table in deep]).astype(np.float32),
    }


def measure(
    base: ResidentBase, probes: ProbeSet, features: list[str], folders: Sequence[Path], layer: int = -1
) -> tuple[Arrays, Arrays]:
    """By feature, the vectors (n, d) and the base's own table (N, d)."""
    encoder = Encoder(base, probes, features, layer=layer)
    tables = encoder.measure_base()
    encodings = encoder.encode([read_finetune(folder) for folder in folders])
    for folder, encoding in zip(folders, encodings, strict=True):
        if isinstance(encoding, CatalogError):
            raise SystemExit(f"{folder.name}: {encoding}")
    vectors = {
        name: np.stack([each.vectors[name] for each in encodings if not isinstance(each, CatalogError)])
        for name in features
    }
    return vectors, tables


def describe(folder: Path) -> tuple[str, str]:
    """Label and settings: from the training's report, or for the example pool from the name."""
    report = folder / "training.json"
    if report.exists():
        recipe = json.loads(report.read_text())
        return recipe["recipe"]["label"], json.dumps(recipe)
    return folder.name.split("-")[-2], "{}"


def merge_arrays(held: Arrays, new: Arrays) -> Arrays:
    if not held:
        return new
    order = np.argsort(np.concatenate([held["names"], new["names"]]))
    one_a_model = ("names", "labels", "settings", *STORED)
    return {name: np.concatenate([held[name], new[name]])[order] if name in one_a_model else held[name] for name in new}


def write(path: Path, arrays: Arrays) -> None:
    unfinished = path.with_name(f".{path.name}.unfinished.npz")
    np.savez_compressed(unfinished, **arrays)  # type: ignore[arg-type]
    unfinished.rename(path)


if __name__ == "__main__":
    typer.run(main)
