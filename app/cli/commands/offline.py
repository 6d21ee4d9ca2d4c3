"""`deltadex embed | evaluate`: commands of the workers, for which no server is needed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec

import typer

from catalog.errors import MissingExtra


def embed(context: typer.Context) -> None:
    """Compute vectors of folders into a file, with no server at all (see `deltadex embed --help`)."""
    become("workers.embed", context.args)


def evaluate(context: typer.Context) -> None:
    """Measure how well vectors tell a labelled pool apart, beside baselines (see `deltadex evaluate --help`)."""
    become("workers.evaluation.evaluate", context.args)


def become(module: str, arguments: Sequence[str]) -> None:
    """Turn this process into a command of the workers', for the app never imports torch."""
    if find_spec("torch") is None:
        raise MissingExtra("No torch: this command needs `pip install 'deltadex[worker]'`.")
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])
