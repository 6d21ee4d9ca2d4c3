"""Commands of the CLI, run in the test process, with their output."""

from __future__ import annotations

from typer.testing import CliRunner

from app import cli


def run(*arguments: str, code: int = 0) -> str:
    """The standard output of a command that exits with `code`."""
    result = CliRunner().invoke(cli.cli, arguments)
    assert result.exit_code == code, result.output
    return result.stdout
