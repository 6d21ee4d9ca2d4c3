"""Train the harder pool.

    python -m benchmarks.hard_pool --base DIR --data DIR --out DIR

Several processes may share one output folder: each takes the next recipe that is neither locked nor finished, and an
interrupted recipe is started again. The data folder contains the rows as JSON lines (see `domains.py`). Training all
forty-nine fine-tunes takes about an hour on two cores. Two of them are full fine-tunes of 270 MB.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.hard_pool.domains import DOMAINS
from benchmarks.hard_pool.preferences import pairs
from benchmarks.hard_pool.recipes import Recipe, recipes
from benchmarks.hard_pool.training import Run, save, train_preferred, train_supervised


def main(
    base: Annotated[Path, typer.Option(help="Folder of SmolLM2-135M-Instruct.")],
    data: Annotated[Path, typer.Option(help="Folder of the training rows.")],
    out: Annotated[Path, typer.Option(help="Output folder, with one folder per fine-tune.")],
    only: Annotated[str, typer.Option(help="Train only recipes whose name contains this text.")] = "",
    threads: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Train the recipes that have no folder yet."""
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    for recipe in recipes():
        if only in recipe.name and not (out / recipe.name).exists():
            with try_lock(out / f".{recipe.name}.lock") as locked:
                if locked and not (out / recipe.name).exists():
                    train_and_save(recipe, base, data, out)


def train_and_save(recipe: Recipe, base: Path, data: Path, out: Path) -> None:
    """Train a recipe into a temporary folder and rename it, so that a folder with the final name is complete."""
    started, unfinished = time.perf_counter(), out / f".{recipe.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    run = train(recipe, base, data)
    save(run, unfinished)
    window = max(1, min(8, len(run.losses) // 2))
    report = {
        "recipe": asdict(recipe),
        "steps": len(run.losses),
        "first_loss": sum(run.losses[:window]) / window,
        "last_loss": sum(run.losses[-window:]) / window,
        "seconds": round(time.perf_counter() - started, 1),
    }
    (unfinished / "training.json").write_text(json.dumps(report))
    unfinished.rename(out / recipe.name)
    print(json.dumps(report), flush=True)


def train(recipe: Recipe, base: Path, data: Path) -> Run:
    selected = slice(recipe.first, recipe.first + recipe.rows)
    if recipe.kind == "dpo":
        return train_preferred(base, recipe, pairs(data, recipe.label.removeprefix("prefers-"))[selected])
    domain = next(domain for domain in DOMAINS if domain.name == recipe.label)
    return train_supervised(base, recipe, domain.rows(data)[selected])


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Yield whether this process holds the lock, which the kernel releases when the process ends."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


if __name__ == "__main__":
    typer.run(main)
