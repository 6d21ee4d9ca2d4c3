"""Commands of the CLI, run in the test process."""

from __future__ import annotations

import json

from typer.testing import CliRunner, Result

from app import cli
from catalog.errors import CatalogError


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.cli, arguments)


def answer(*arguments: str) -> dict:
    """The JSON that the command prints; nothing else may be on standard output."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def failure(*arguments: str) -> CatalogError:
    """The error that the command raises."""
    error = run(*arguments).exception
    assert isinstance(error, CatalogError)
    return error
