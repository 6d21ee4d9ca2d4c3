"""Whether sets of modules that are chosen by their shifts do better than random ones.

    python -m benchmarks.selections --base BASE --rows DIR --results DIR [--only TASK] [--picture PNG] [--json]

The modules are the twenty adapters of `examples/`. A task is told by fifteen rows: an adapter is trained on them and
measured, as a worker does it, and so the nearest modules are known. For each seed five of the rows are drawn, on which
each arm's set is composed as a worker composes it; it is judged on rows that nothing has seen. Eight tasks are in the
form of BIG-Bench Hard's (`made.py`): that benchmark's own rows are judged by, and never learned from. Five are the
pool's own domains. `--rows` holds `bbh.jsonl` and a JSON Lines file for each domain.

Each task's figures are kept in `--results`: a run that is cut short goes on where it was, with the same settings.
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

from benchmarks.selections.judging import Judge, summary
from benchmarks.selections.picture import draw
from benchmarks.selections.tasks import Task, all_tasks
from benchmarks.tasks import EXAMPLES, unit
from catalog.errors import CatalogError
from catalog.selections.strategies import Arm, Candidates, propose
from catalog.spaces.probes import load_probes
from catalog.tasks.training_config import Recipe
from workers.encoding.encoder import Encoder
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import read_finetune
from workers.selections.runner import SHOTS
from workers.selections.weights import Part, compose, part_of, weighted
from workers.tasks.scoring import Scorer
from workers.tasks.trainer import Trainer

FEATURE = "delta_layers"
notes = Console(stderr=True)


def main(
    base: Annotated[Path, typer.Option(help="Folder of the base model.")],
    rows: Annotated[Path, typer.Option(help="Folder of bbh.jsonl and of DOMAIN.jsonl files.")],
    results: Annotated[Path, typer.Option(help="Where each task's figures are kept.")],
    only: Annotated[list[str] | None, typer.Option(help="Of these tasks.")] = None,
    count: Annotated[int, typer.Option(help="Modules in a set.")] = 5,
    seeds: Annotated[int, typer.Option()] = 3,
    budget: Annotated[int, typer.Option(help="Weights that are tried for a set.")] = 20,
    held: Annotated[int, typer.Option(help="Rows that a task is judged by.")] = 30,
    dtype: Annotated[str, typer.Option()] = "bfloat16",
    minutes: Annotated[float, typer.Option(help="Begin no task after so many.")] = 60.0,
    picture: Annotated[Path | None, typer.Option(help="A PNG of the differences from random.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure what is not measured yet, and sum it up."""
    results.mkdir(parents=True, exist_ok=True)
    bench: Bench | None = None
    found = []
    deadline = time.monotonic() + 60 * minutes
    settings = {"count": count, "seeds": seeds, "budget": budget, "held": held, "dtype": dtype}
    for task in all_tasks(rows, held):
        if only and task.name not in only:
            continue
        file = results / f"{task.name}.json"
        if not file.exists() and time.monotonic() > deadline:
            break
        if not file.exists():
            bench = bench or Bench(base, dtype, count, seeds, budget)
            file.write_text(json.dumps(bench.measure(task) | {"settings": settings}))
        found.append(json.loads(file.read_text()))
        if found[-1]["settings"] != settings:
            raise typer.BadParameter(f"{file} was measured with {found[-1]['settings']}: choose another --results.")
        notes.print(task.name, found[-1]["seconds"])
    report: dict[str, Any] = {"tasks": found, "summary": summary(found)}
    if picture:
        draw(picture, found, report["summary"])
    if as_json:
        print(json.dumps(report))
    else:
        for table in (of_tasks(found), of_groups(report["summary"])):
            Console().print(table)


class Bench:
    """The pool on its base."""

    def __init__(self, base: Path, dtype: str, count: int, seeds: int, budget: int) -> None:
        self._encoder = Encoder(ResidentBase.load(base, "base", "0" * 40, dtype=dtype), load_probes(), (FEATURE,))
        self._encoder.measure_base()
        self._count, self._seeds, self._budget = count, seeds, budget
        self._recipe = Recipe()
        self._trainer = Trainer(self._encoder.base, self._recipe)
        folders = sorted(EXAMPLES.glob("pool*/smollm2-*"))
        self._parts = [part_of(folder.name, read_finetune(folder), self._encoder.base) for folder in folders]
        self._vectors = unit(np.stack([self._vector(folder) for folder in folders]))

    def measure(self, task: Task) -> dict[str, Any]:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            self._trainer.train(task.shown, self._recipe.steps(len(task.shown)), 0, Path(folder))
            candidates = self._candidates(self._vector(Path(folder)))
        trained = time.perf_counter()
        judge = Judge(self._encoder, task, self._recipe.tokens)
        arms: dict[str, list[dict[str, Any]]] = {arm: [] for arm in Arm}
        for seed in range(self._seeds):
            shots = random.Random(f"{task.name} {seed}").sample(list(task.shown), SHOTS)
            sets = [[self._parts[place] for place in propose(arm, candidates, self._count, seed)] for arm in Arm]
            scorer = Scorer(self._encoder, shots, self._recipe.tokens)
            for arm, parts in zip(Arm, sets, strict=True):
                found = compose(scorer, parts, self._budget, lambda done: None)
                told = {"modules": [part.name for part in parts], "weights": [round(w, 3) for w in found.weights]}
                held = judge.finetune(weighted(parts, found.weights)).as_dict()
                arms[arm].append({**told, "examples_loss": round(found.loss, 4), "held": held})
        nearest: Part = self._parts[candidates.ids[0]]
        return {
            "task": task.name,
            "group": task.group,
            "seconds": round(time.perf_counter() - start, 1),
            "seconds_training": round(trained - start, 1),
            "nearest": nearest.name,
            "base": judge.base().as_dict(),
            "nearest_alone": judge.finetune(weighted([nearest], [1.0])).as_dict(),
            "arms": arms,
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


def of_tasks(found: list[dict[str, Any]]) -> Table:
    table = Table("task", "base", "nearest alone", *Arm, title="Nats a token of held rows, mean over seeds; accuracy")
    for task in found:
        cells = [[task["base"]], [task["nearest_alone"]], *([run["held"] for run in task["arms"][arm]] for arm in Arm)]
        table.add_row(task["task"], *map(_cell, cells))
    return table


def of_groups(groups: list[dict[str, Any]]) -> Table:
    table = Table("tasks", "measure", "base", "nearest alone", *Arm, title="Means; in brackets beside random, 95%")
    for each in groups:
        arms = [each["arms"][arm] for arm in Arm]
        cells = ["{:.3f} ({:+.3f}: {:+.3f} {:+.3f})".format(arm["mean"], *arm["beside_random"]) for arm in arms]
        alone = [f"{each[name]:.3f}" for name in ("base", "nearest_alone")]
        table.add_row(f"{each['group']} ({each['tasks']})", each["measure"], *alone, *cells)
    return table


def _cell(judged: list[dict[str, float | None]]) -> str:
    loss = np.mean([each["loss"] for each in judged])
    right = [each["accuracy"] for each in judged if each["accuracy"] is not None]
    return f"{loss:.3f}" + (f" {np.mean(right):.0%}" if right else "")


if __name__ == "__main__":
    typer.run(main)
