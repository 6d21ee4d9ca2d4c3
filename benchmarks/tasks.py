"""Measure whether twenty examples find the models of their domain, and how long a task takes.

    python -m benchmarks.tasks --base BASE --rows DIR [--draws 10] [--count 20] [--json]

`--rows` is a folder with a JSON Lines file for each domain of `examples/labels.csv`. The adapters in `examples/pool`
were trained on the first `--unseen` rows of each file; each task consists of `--count` of the other rows, and there are
`--draws` tasks per domain. A task is trained and measured as by a worker, but without the half samples that estimate
the confidence. Its nearest cluster is the domain whose mean direction has the largest cosine to it. Reported: the share
of tasks whose nearest cluster and nearest model are of their domain, the cosines of the nearest model of the same and
of other domains, and the seconds of a task with the base in memory.
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
from catalog.tasks.examples import Example, parse_examples, parse_json_lines
from catalog.tasks.training_config import TrainingConfig
from workers.encoding.encoder import Encoder
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import read_finetune
from workers.tasks.trainer import Trainer

EXAMPLES = Path(__file__).parents[1] / "examples"
FEATURES = ("delta_layers", "delta_activations")


@dataclass(frozen=True)
class MeasuredTask:
    """A task's vector (d,) of each feature, and the seconds that it took."""

    domain: str
    vectors: dict[str, np.ndarray]
    seconds: float


def main(
    base: Annotated[Path, typer.Option(help="Folder of the base model.")],
    rows: Annotated[Path, typer.Option(help="Folder of DOMAIN.jsonl files.")],
    unseen: Annotated[int, typer.Option(help="Index of the first row that the adapters were not trained on.")] = 560,
    draws: Annotated[int, typer.Option(help="Tasks per domain.")] = 10,
    steps: Annotated[int | None, typer.Option(help="Training steps. Default: those of the training config.")] = None,
    count: Annotated[int, typer.Option(help="Examples per task.")] = 20,
    vectors: Annotated[Path | None, typer.Option(help="Save all vectors in this npz file.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Draw the tasks, measure them, and compare them with the pool."""
    encoder = Encoder(ResidentBase.load(base, "base", "0" * 40), load_probes(), FEATURES)
    encoder.measure_base()
    pool = encode_pool(encoder)
    training = TrainingConfig() if steps is None else TrainingConfig(min_steps=steps, max_steps=steps)
    trainer = Trainer(encoder.base, training)
    measured = [
        measure_task(encoder, trainer, training, domain, examples, seed)
        for domain, examples, seed in track(
            list(draw_tasks(rows, sorted(pool), unseen, draws, count)),
            console=Console(stderr=True),
            description="tasks",
        )
    ]
    if vectors is not None:
        save_vectors(vectors, pool, measured)
    report = {
        "training": training.as_dict(),
        "tasks": len(measured),
        "examples": count,
        "seconds": quantiles([task.seconds for task in measured]),
        **{feature: compare(feature, pool, measured) for feature in FEATURES},
    }
    print(json.dumps(report)) if as_json else Console().print(table(report))


def draw_tasks(
    rows: Path, domains: Sequence[str], unseen: int, draws: int, count: int
) -> list[tuple[str, list[Example], int]]:
    """(domain, examples, seed) of each task, alternating between the domains."""
    drawn = []
    for draw in range(draws):
        for domain in domains:
            lines = (rows / f"{domain}.jsonl").read_text(encoding="utf-8").split("\n")[unseen:]
            chosen = random.Random(f"{domain} {draw}").sample(lines, count)
            drawn.append((domain, list(parse_examples(parse_json_lines(chosen))), draw))
    return drawn


def encode_pool(encoder: Encoder) -> dict[str, dict[str, np.ndarray]]:
    """The vectors (n, d) of the example adapters by domain and feature."""
    vectors: dict[str, dict[str, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
    with (EXAMPLES / "labels.csv").open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            [encoding] = encoder.encode([read_finetune(EXAMPLES / line["model"])])
            for feature in FEATURES:
                vectors[line["label"]][feature].append(encoding.vectors[feature])  # type: ignore[union-attr]
    return {domain: {name: np.stack(rows) for name, rows in features.items()} for domain, features in vectors.items()}


def measure_task(
    encoder: Encoder, trainer: Trainer, training: TrainingConfig, domain: str, examples: Sequence[Example], seed: int
) -> MeasuredTask:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trainer.train(examples, training.steps(len(examples)), seed, Path(folder))
        [encoding] = encoder.encode([read_finetune(Path(folder))])
    if isinstance(encoding, CatalogError):
        raise encoding
    return MeasuredTask(domain, encoding.vectors, time.perf_counter() - start)


def compare(feature: str, pool: dict[str, dict[str, np.ndarray]], measured: Sequence[MeasuredTask]) -> dict[str, Any]:
    """How well tasks find the models of their domain by one feature."""
    domains = sorted(pool)
    models = np.concatenate([pool[domain][feature] for domain in domains])
    labels = np.repeat(domains, [len(pool[domain][feature]) for domain in domains])
    centroids = np.stack([unit(unit(pool[domain][feature]).mean(axis=0)) for domain in domains])
    cluster_hits, model_hits, same_domain, other_domains = [], [], [], []
    for task in measured:
        vector = unit(task.vectors[feature])
        cluster_hits.append(domains[int(np.argmax(centroids @ vector))] == task.domain)
        cosines = unit(models) @ vector
        model_hits.append(str(labels[int(np.argmax(cosines))]) == task.domain)
        same_domain.append(float(cosines[labels == task.domain].max()))
        other_domains.append(float(cosines[labels != task.domain].max()))
    return {
        "nearest_cluster": float(np.mean(cluster_hits)),
        "nearest_model": float(np.mean(model_hits)),
        "misses": [task.domain for task, hit in zip(measured, cluster_hits, strict=True) if not hit],
        "cosine_same_domain": quantiles(same_domain),
        "cosine_other_domains": quantiles(other_domains),
    }


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def quantiles(values: Sequence[float]) -> dict[str, float]:
    return {name: round(float(np.quantile(values, share)), 4) for name, share in (("min", 0), ("p50", 0.5), ("max", 1))}


def save_vectors(path: Path, pool: dict[str, dict[str, np.ndarray]], measured: Sequence[MeasuredTask]) -> None:
    arrays: dict[str, Any] = {f"pool {domain} {name}": rows for domain in pool for name, rows in pool[domain].items()}
    for number, task in enumerate(measured):
        arrays |= {f"task {number} {task.domain} {name}": vector for name, vector in task.vectors.items()}
    np.savez(path, **arrays)


def table(report: dict[str, Any]) -> Table:
    printed = Table("metric", *FEATURES)
    for name in report[FEATURES[0]]:
        printed.add_row(name, *(str(report[feature][name]) for feature in FEATURES))
    printed.add_row("seconds", str(report["seconds"]))
    return printed


if __name__ == "__main__":
    typer.run(main)
