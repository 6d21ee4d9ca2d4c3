"""Commands run in the tests' own process, with what they print."""

from __future__ import annotations

from typer.testing import CliRunner

from app import cli


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli.cli, arguments)
    assert result.exit_code == code, result.output
    return result.stdout
