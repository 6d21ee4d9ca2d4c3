"""What `evaluate` and the studies have in common on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from catalog.errors import CatalogError
from catalog.settings import settings
from workers.encoding.resident_base import ResidentBase
from workers.evaluation.labels import check_groups, read_labels
from workers.evaluation.pool import Pool, Tell, gather, load_base

out = Console()
notes = Console(stderr=True)  # progress and errors; standard output is the answer alone

Labels = Annotated[Path, typer.Argument(metavar="LABELS.csv", help="Lines of MODEL,LABEL: repo ids or folders.")]
Base = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the base; the one they name without.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where tables, plots and vectors go.")]
Probes = Annotated[Path | None, typer.Option(metavar="FILE.json", help="Probe set; the default one without.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
Batch = Annotated[int, typer.Option(min=1, help="Adapters in one forward.")]
Feature = Annotated[str, typer.Option(help="Member of the Delta-X family.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the same as JSON.")]


@contextmanager
def errors_told(as_json: bool) -> Iterator[None]:
    """An error of ours becomes its code and sentence, and exit code 1."""
    try:
        yield
    except CatalogError as error:
        if as_json:
            typer.echo(json.dumps({"code": error.code, "message": str(error)}))
        else:
            notes.print(f"[red]{error.code}[/red]: {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


@contextmanager
def progress() -> Iterator[Tell]:
    """A bar on standard error, and the function that moves it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=notes, transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def tell(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield tell


def read_pool(labels: Path, tell: Tell, check: Callable[..., None] = check_groups) -> Pool:
    """The pool that a file names; raises what reading, checking and gathering raise."""
    labelled = read_labels(labels)
    check(labelled)
    return gather(labelled, labels, settings(), tell)


def read_base(pool: Pool, folder: Path | None, dtype: str, device: str) -> ResidentBase:
    return load_base(pool, folder, settings(), dtype=dtype, device=device)
