"""Measure whether sets of adapters that are selected by their vectors are better than random sets.

    python -m benchmarks.selections --base BASE --rows DIR --results DIR [--only TASK] [--picture PNG] [--json]

The candidates are the twenty adapters of `examples/`. A task has fifteen examples: as in a worker, an adapter is
trained on them and measured, which gives the cosines of the candidates. Each seed draws five of the examples, on which
the set of each strategy is composed as in a worker. The sets are evaluated on rows that were not used for training.
Eight tasks have the form of tasks in BIG-Bench Hard (`generated.py`); the rows of that benchmark are used only for
evaluation. Five tasks are the domains of the pool. `--rows` has `bbh.jsonl` and a JSON Lines file for each domain.

The results of each task are stored in `--results`: an interrupted run continues there, with the same settings.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.selections.judging import HoldoutScorer, summarize
from benchmarks.selections.picture import draw
from benchmarks.selections.strategies import COMPARED, RANDOM, strategies
from benchmarks.selections.tasks import Task, all_tasks
from benchmarks.tasks import EXAMPLES, unit
from catalog.errors import CatalogError
from catalog.selections.strategies import Candidates
from catalog.spaces.probes import load_probes
from catalog.tasks.training_config import TrainingConfig
from workers.encoding.encoder import Encoder
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import read_finetune
from workers.selections.runner import SHOTS
from workers.selections.weights import Adapter, compose, fit_adapter, weighted_sum
from workers.tasks.scoring import Scorer
from workers.tasks.trainer import Trainer

FEATURE = "delta_layers"
SHOWN = (*COMPARED, RANDOM)
notes = Console(stderr=True)


def main(
    base: Annotated[Path, typer.Option(help="Folder of the base model.")],
    rows: Annotated[Path, typer.Option(help="Folder of bbh.jsonl and of DOMAIN.jsonl files.")],
    results: Annotated[Path, typer.Option(help="Folder for the results of each task.")],
    only: Annotated[list[str] | None, typer.Option(help="Only these tasks.")] = None,
    count: Annotated[int, typer.Option(help="Adapters in a set.")] = 5,
    seeds: Annotated[int, typer.Option()] = 3,
    budget: Annotated[int, typer.Option(help="Maximum number of weight vectors to try per set.")] = 20,
    holdout: Annotated[int, typer.Option(help="Rows that a task is evaluated on.")] = 30,
    dtype: Annotated[str, typer.Option()] = "bfloat16",
    minutes: Annotated[float, typer.Option(help="Start no task after this time.")] = 60.0,
    picture: Annotated[Path | None, typer.Option(help="Write a PNG of the differences from random.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure the tasks without results, and summarize all."""
    results.mkdir(parents=True, exist_ok=True)
    bench: Bench | None = None
    measured = []
    deadline = time.monotonic() + 60 * minutes
    settings = {"count": count, "seeds": seeds, "budget": budget, "holdout": holdout, "dtype": dtype}
    for task in all_tasks(rows, holdout):
        if only and task.name not in only:
            continue
        file = results / f"{task.name}.json"
        if not file.exists() and time.monotonic() > deadline:
            break
        if not file.exists():
            bench = bench or Bench(base, dtype, count, seeds, budget)
            file.write_text(json.dumps(bench.measure(task) | {"settings": settings}))
        measured.append(json.loads(file.read_text()))
        if measured[-1]["settings"] != settings:
            raise typer.BadParameter(f"{file} was measured with {measured[-1]['settings']}: choose another --results.")
        notes.print(task.name, measured[-1]["seconds"])
    report: dict[str, Any] = {"tasks": measured, "summary": summarize(measured)}
    if picture:
        draw(picture, measured, report["summary"])
    if as_json:
        print(json.dumps(report))
    else:
        for table in (tasks_table(measured), groups_table(report["summary"])):
            Console().print(table)


class Bench:
    """The adapters of the pool on their base."""

    def __init__(self, base: Path, dtype: str, count: int, seeds: int, budget: int) -> None:
        self._encoder = Encoder(ResidentBase.load(base, "base", "0" * 40, dtype=dtype), load_probes(), (FEATURE,))
        self._encoder.measure_base()
        self._count, self._seeds, self._budget = count, seeds, budget
        self._training = TrainingConfig()
        self._trainer = Trainer(self._encoder.base, self._training)
        folders = sorted(EXAMPLES.glob("pool*/smollm2-*"))
        self._adapters = [fit_adapter(folder.name, read_finetune(folder), self._encoder.base) for folder in folders]
        self._vectors = unit(np.stack([self._vector(folder) for folder in folders]))

    def measure(self, task: Task) -> dict[str, Any]:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            self._trainer.train(task.examples, self._training.steps(len(task.examples)), 0, Path(folder))
            candidates = self._candidates(self._vector(Path(folder)))
        trained = time.perf_counter()
        holdout = HoldoutScorer(self._encoder, task, self._training.max_tokens)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in SHOWN}
        for seed in range(self._seeds):
            shots = random.Random(f"{task.name} {seed}").sample(list(task.examples), SHOTS)
            scorer = Scorer(self._encoder, shots, self._training.max_tokens)
            for name, select in strategies(seed).items():
                adapters = [self._adapters[index] for index in select(candidates, self._count)]
                best = compose(scorer, adapters, self._budget, lambda done: None)
                run = {
                    "members": [adapter.name for adapter in adapters],
                    "weights": [round(weight, 3) for weight in best.weights],
                    "examples_loss": round(best.loss, 4),
                    "holdout": holdout.score_finetune(weighted_sum(adapters, best.weights)).as_dict(),
                }
                runs[name].append(run)
        nearest: Adapter = self._adapters[candidates.ids[0]]
        return {
            "task": task.name,
            "group": task.group,
            "seconds": round(time.perf_counter() - start, 1),
            "seconds_training": round(trained - start, 1),
            "nearest": nearest.name,
            "base": holdout.score_base().as_dict(),
            "nearest_alone": holdout.score_finetune(weighted_sum([nearest], [1.0])).as_dict(),
            "strategies": runs,
        }

    def _candidates(self, vector: np.ndarray) -> Candidates:
        cosines = self._vectors @ unit(vector)
        order = np.argsort(-cosines)
        return Candidates(order, cosines[order], self._vectors[order])

    def _vector(self, folder: Path) -> np.ndarray:
        [encoding] = self._encoder.encode([read_finetune(folder)])
        if isinstance(encoding, CatalogError):
            raise encoding
        return encoding.vectors[FEATURE]


def tasks_table(results: list[dict[str, Any]]) -> Table:
    table = Table("task", "base", "nearest alone", *SHOWN, title="Holdout: nats per token, mean over seeds; accuracy")
    for task in results:
        runs = [[run["holdout"] for run in task["strategies"][name]] for name in SHOWN]
        table.add_row(task["task"], *map(_cell, ([task["base"]], [task["nearest_alone"]], *runs)))
    return table


def groups_table(groups: list[dict[str, Any]]) -> Table:
    title = "Means; in brackets the difference from random, with its 95% interval"
    table = Table("tasks", "measure", "base", "nearest alone", *SHOWN, title=title)
    for group in groups:
        means = [group["strategies"][name] for name in SHOWN]
        cells = ["{:.3f} ({:+.3f}: {:+.3f} {:+.3f})".format(mean["mean"], *mean["delta_vs_random"]) for mean in means]
        alone = [f"{group[name]:.3f}" for name in ("base", "nearest_alone")]
        table.add_row(f"{group['group']} ({group['tasks']})", group["measure"], *alone, *cells)
    return table


def _cell(scores: list[dict[str, float | None]]) -> str:
    loss = np.mean([score["loss"] for score in scores])
    accuracies = [score["accuracy"] for score in scores if score["accuracy"] is not None]
    return f"{loss:.3f}" + (f" {np.mean(accuracies):.0%}" if accuracies else "")


if __name__ == "__main__":
    typer.run(main)
