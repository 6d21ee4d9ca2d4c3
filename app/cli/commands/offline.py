"""`deltadex embed | evaluate`: commands of the workers that need no server."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec

import typer

from catalog.errors import MissingExtra


def embed(context: typer.Context) -> None:
    """Compute vectors of local folders and write them to a file, without a server (see `deltadex embed --help`)."""
    exec_module("workers.embed", context.args)


def evaluate(context: typer.Context) -> None:
    """Measure how well vectors separate a labeled pool, compared with baselines (see `deltadex evaluate --help`)."""
    exec_module("workers.evaluation.evaluate", context.args)


def exec_module(module: str, arguments: Sequence[str]) -> None:
    """Replace this process with a command of the workers, because the app never imports torch.

    Raises `MissingExtra` if torch is not installed.
    """
    if find_spec("torch") is None:
        raise MissingExtra("This command needs torch. Install it with `pip install 'deltadex[worker]'`.")
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])
