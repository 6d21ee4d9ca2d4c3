"""Whether twenty examples find the models of their domain, and how long a task takes.

    python -m benchmarks.tasks --base BASE --rows DIR [--draws 10] [--count 20] [--json]

`--rows` holds a JSON Lines file for each domain of `examples/labels.csv`, of which the adapters in `examples/pool` saw
the first `--unseen`; `--count` of the others make a task, `--draws` times a domain. Each task is trained and measured
as a worker does it, without the halves that tell how certain the answer is. Its nearest cluster is the domain whose
models' mean direction has the greatest cosine to it. Printed too: the cosine of the nearest model of its own domain,
and of the nearest one when that domain's models are left out; and the seconds that a task takes, the base being in
memory.
"""

from __future__ import annotations

import csv
import json
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from catalog.errors import CatalogError
from catalog.spaces.probes import load_probes
from catalog.tasks.examples import Example, read_examples, read_rows
from catalog.tasks.training_config import Recipe
from workers.encoding.encoder import Encoder
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import read_finetune
from workers.tasks.trainer import Trainer

EXAMPLES = Path(__file__).parents[1] / "examples"
FEATURES = ("delta_layers", "delta_activations")


@dataclass(frozen=True)
class Drawn:
    """One task: its vector (d,) of each feature, and the seconds that it took."""

    domain: str
    vectors: dict[str, np.ndarray]
    seconds: float


def main(
    base: Annotated[Path, typer.Option(help="Folder of the base model.")],
    rows: Annotated[Path, typer.Option(help="Folder of DOMAIN.jsonl files.")],
    unseen: Annotated[int, typer.Option(help="Rows before this one were trained on.")] = 560,
    draws: Annotated[int, typer.Option(help="Tasks a domain.")] = 10,
    steps: Annotated[int | None, typer.Option(help="Of training; the recipe's without.")] = None,
    count: Annotated[int, typer.Option(help="Examples of a task.")] = 20,
    vectors: Annotated[Path | None, typer.Option(help="Keep all vectors in this npz.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Draw the tasks, measure them, and compare them with the pool."""
    encoder = Encoder(ResidentBase.load(base, "base", "0" * 40), load_probes(), FEATURES)
    encoder.measure_base()
    pool = measured_pool(encoder)
    recipe = Recipe() if steps is None else Recipe(least_steps=steps, most_steps=steps)
    trainer = Trainer(encoder.base, recipe)
    found = [
        measured(encoder, trainer, recipe, domain, examples, seed)
        for domain, examples, seed in track(
            list(tasks(rows, sorted(pool), unseen, draws, count)), console=Console(stderr=True), description="tasks"
        )
    ]
    if vectors is not None:
        keep(vectors, pool, found)
    report = {
        "recipe": recipe.as_dict(),
        "tasks": len(found),
        "examples": count,
        "seconds": quantiles([each.seconds for each in found]),
        **{feature: judged(feature, pool, found) for feature in FEATURES},
    }
    print(json.dumps(report)) if as_json else Console().print(table(report))


def tasks(
    rows: Path, domains: Sequence[str], unseen: int, draws: int, count: int
) -> list[tuple[str, list[Example], int]]:
    """(domain, its examples, seed), one domain after another so that a run that is cut short has seen all of them."""
    found = []
    for draw in range(draws):
        for domain in domains:
            lines = (rows / f"{domain}.jsonl").read_text(encoding="utf-8").split("\n")[unseen:]
            chosen = random.Random(f"{domain} {draw}").sample(lines, count)
            found.append((domain, list(read_examples(read_rows(chosen))), draw))
    return found


def measured_pool(encoder: Encoder) -> dict[str, dict[str, np.ndarray]]:
    """By domain and feature, the vectors (n, d) of the adapters that ship."""
    found: dict[str, dict[str, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
    with (EXAMPLES / "labels.csv").open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            [encoding] = encoder.encode([read_finetune(EXAMPLES / line["model"])])
            for feature in FEATURES:
                found[line["label"]][feature].append(encoding.vectors[feature])  # type: ignore[union-attr]
    return {domain: {name: np.stack(each) for name, each in features.items()} for domain, features in found.items()}


def measured(
    encoder: Encoder, trainer: Trainer, recipe: Recipe, domain: str, examples: Sequence[Example], seed: int
) -> Drawn:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trainer.train(examples, recipe.steps(len(examples)), seed, Path(folder))
        [encoding] = encoder.encode([read_finetune(Path(folder))])
    if isinstance(encoding, CatalogError):
        raise encoding
    return Drawn(domain, encoding.vectors, time.perf_counter() - start)


def judged(feature: str, pool: dict[str, dict[str, np.ndarray]], found: Sequence[Drawn]) -> dict[str, Any]:
    domains = sorted(pool)
    models = np.concatenate([pool[domain][feature] for domain in domains])
    labels = np.repeat(domains, [len(pool[domain][feature]) for domain in domains])
    centroids = np.stack([unit(unit(pool[domain][feature]).mean(axis=0)) for domain in domains])
    clusters, nearest, own, other = [], [], [], []
    for task in found:
        vector = unit(task.vectors[feature])
        clusters.append(domains[int(np.argmax(centroids @ vector))] == task.domain)
        cosines = unit(models) @ vector
        nearest.append(str(labels[int(np.argmax(cosines))]) == task.domain)
        own.append(float(cosines[labels == task.domain].max()))
        other.append(float(cosines[labels != task.domain].max()))
    return {
        "nearest_cluster": float(np.mean(clusters)),
        "nearest_model": float(np.mean(nearest)),
        "wrong": [task.domain for task, right in zip(found, clusters, strict=True) if not right],
        "nearest_of_own": quantiles(own),
        "nearest_of_others": quantiles(other),
    }


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def quantiles(values: Sequence[float]) -> dict[str, float]:
    return {name: round(float(np.quantile(values, at)), 4) for name, at in (("least", 0), ("p50", 0.5), ("most", 1))}


def keep(path: Path, pool: dict[str, dict[str, np.ndarray]], found: Sequence[Drawn]) -> None:
    held: dict[str, Any] = {f"pool {domain} {name}": each for domain in pool for name, each in pool[domain].items()}
    for number, task in enumerate(found):
        held |= {f"task {number} {task.domain} {name}": each for name, each in task.vectors.items()}
    np.savez(path, **held)


def table(report: dict[str, Any]) -> Table:
    shown = Table("figure", *FEATURES)
    for name in report[FEATURES[0]]:
        shown.add_row(name, *(str(report[feature][name]) for feature in FEATURES))
    shown.add_row("seconds", str(report["seconds"]))
    return shown


if __name__ == "__main__":
    typer.run(main)
