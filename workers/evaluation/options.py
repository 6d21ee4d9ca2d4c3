"""Command-line options and helpers that `evaluate` and the studies share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from catalog.errors import CatalogError
from catalog.settings import settings
from workers.encoding.resident_base import ResidentBase
from workers.evaluation.labels import check_labels, read_labels
from workers.evaluation.pool import Pool, Progress, gather, load_base

out = Console()
notes = Console(stderr=True)  # progress and errors; standard output has only the result

Labels = Annotated[
    Path, typer.Argument(metavar="LABELS.csv", help="Lines of MODEL,LABEL. A model is a repo id or a folder.")
]
Base = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of the base. Default: the base that the models name.")
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for tables, plots and vectors.")]
Probes = Annotated[Path | None, typer.Option(metavar="FILE.json", help="Probe set. Default: the shipped one.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
Batch = Annotated[int, typer.Option(min=1, help="Adapters per forward pass.")]
Feature = Annotated[str, typer.Option(help="Member of the Delta-X family.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def report_errors(as_json: bool) -> Iterator[None]:
    """Print the code and message of a `CatalogError`, and exit with status 1."""
    try:
        yield
    except CatalogError as error:
        if as_json:
            typer.echo(json.dumps({"code": error.code, "message": str(error)}))
        else:
            notes.print(f"[red]{error.code}[/red]: {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show a progress bar on standard error; yields the function that updates it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with RichProgress(*columns, console=notes, transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def progress(step: str, done: int, total: int) -> None:
            bar.update(task, description=step, completed=done, total=total)

        yield progress


def read_pool(labels: Path, progress: Progress, check: Callable[..., None] = check_labels) -> Pool:
    """Read, check and load the pool of a labels file; raises what `read_labels`, `check` and `gather` raise."""
    labeled = read_labels(labels)
    check(labeled)
    return gather(labeled, labels, settings(), progress)


def load_resident_base(pool: Pool, folder: Path | None, dtype: str, device: str) -> ResidentBase:
    return load_base(pool, folder, settings(), dtype=dtype, device=device)
