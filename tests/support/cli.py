"""Commands run in the tests' own process."""

from __future__ import annotations

import json

from typer.testing import CliRunner, Result

from app import cli
from catalog.errors import CatalogError


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.cli, arguments)


def answer(*arguments: str) -> dict:
    """The JSON on standard output, and nothing else there."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def failure(*arguments: str) -> CatalogError:
    error = run(*arguments).exception
    assert isinstance(error, CatalogError)
    return error
