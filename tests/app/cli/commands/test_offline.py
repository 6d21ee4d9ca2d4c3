"""Commands that the app delegates to the workers, because it never imports torch."""

from __future__ import annotations

import sys

import pytest
from typer.testing import CliRunner

from app.cli import cli
from app.cli.commands import offline as offline_commands
from catalog.errors import MissingExtra

COMMANDS = {
    "embed": "workers.embed",
    "evaluate": "workers.evaluation.evaluate",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_command_executes_the_module_with_all_arguments(command: str, monkeypatch: pytest.MonkeyPatch):
    executed: list[list[str]] = []
    monkeypatch.setattr(offline_commands.os, "execv", lambda program, arguments: executed.append([program, *arguments]))
    result = CliRunner().invoke(cli, [command, "kinds", "--out", "here", "--help"])
    assert result.exit_code == 0, result.output
    assert executed == [[sys.executable, sys.executable, "-m", COMMANDS[command], "kinds", "--out", "here", "--help"]]


def test_missing_torch_raises_missing_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(offline_commands, "find_spec", lambda name: None)
    result = CliRunner().invoke(cli, ["evaluate", "labels.csv"])
    assert isinstance(result.exception, MissingExtra)
    assert "deltadex[worker]" in str(result.exception)
