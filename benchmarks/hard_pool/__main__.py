"""Trains the harder pool.

    python -m benchmarks.hard_pool --base DIR --data DIR --out DIR

Several of these may run side by side on one folder: each takes the next recipe that nobody holds or has finished, and
one that was stopped is begun again. DATA holds the rows as JSON lines (`domains.py` says which). Forty-nine fine-tunes
take about an hour on two cores; two are whole models of 270 MB.
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
    data: Annotated[Path, typer.Option(help="Folder of the rows.")],
    out: Annotated[Path, typer.Option(help="Where the fine-tunes go, a folder each.")],
    only: Annotated[str, typer.Option(help="Only recipes whose name holds this.")] = "",
    threads: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Trains what is not there yet."""
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    for recipe in recipes():
        if only in recipe.name and not (out / recipe.name).exists():
            with try_lock(out / f".{recipe.name}.lock") as mine:
                if mine and not (out / recipe.name).exists():
                    train_and_save(recipe, base, data, out)


def train_and_save(recipe: Recipe, base: Path, data: Path, out: Path) -> None:
    """Trains into another name and renames, so that a folder of the right name is always whole."""
    started, unfinished = time.perf_counter(), out / f".{recipe.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    made = train(recipe, base, data)
    save(made, unfinished)
    few = max(1, min(8, len(made.losses) // 2))
    report = {
        "recipe": asdict(recipe),
        "steps": len(made.losses),
        "first_loss": sum(made.losses[:few]) / few,
        "last_loss": sum(made.losses[-few:]) / few,
        "seconds": round(time.perf_counter() - started, 1),
    }
    (unfinished / "training.json").write_text(json.dumps(report))
    unfinished.rename(out / recipe.name)
    print(json.dumps(report), flush=True)


def train(recipe: Recipe, base: Path, data: Path) -> Run:
    part = slice(recipe.first, recipe.first + recipe.rows)
    if recipe.kind == "dpo":
        return train_preferred(base, recipe, pairs(data, recipe.label.removeprefix("prefers-"))[part])
    domain = next(domain for domain in DOMAINS if domain.name == recipe.label)
    return train_supervised(base, recipe, domain.rows(data)[part])


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Whether this process alone holds the file; the kernel lets go when the process ends."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


if __name__ == "__main__":
    typer.run(main)
