from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.cli.commands.selections import _expression
from catalog.arithmetic.expressions import parse
from catalog.auth.viewer import ADMIN
from catalog.database import Database
from catalog.selections import service as selection_service
from tests.support import catalog as entries
from tests.support.cli import answer, failure, run
from tests.support.selection_requests import finish
from tests.support.task_commands import finish_next_task as finish_task
from tests.support.task_requests import ROWS
from tests.support.waiting import wait_until


@pytest.fixture
def models(database: Database) -> Database:
    entries.put(database, "owner/law", [1, 0, 0])
    return database


@pytest.fixture
def task(url: str, models: Database, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in ROWS))
    answer("task", str(file), "--no-wait", "--keep-examples", "--name", "mine", "--api", url)
    finish_task(models)


def work(database: Database) -> None:
    """Wait for a selection, and finish it as a worker does."""
    found = wait_until(
        lambda: selection_service.list_page(database, ADMIN, before=None, limit=1), "a selection is created"
    )
    [(selection, job)] = found
    finish(database, {"id": selection.id, "job": job.id})


def test_select_waits_for_the_result_and_shows_it(url: str, models: Database, task: None):
    with ThreadPoolExecutor(1) as pool:
        worker = pool.submit(work, models)
        result = run("select", "mine", "-n", "3", "--strategy", "diverse", "--strategy", "nearest", "--api", url)
        worker.result()
    assert result.exit_code == 0, result.output
    for shown in ("diverse", "1.750", "nearest", "2.125", "base model", "3.000", "1.25*owner/law - 0.5*owner/math"):
        assert shown in result.stdout
    assert "owner/code" not in result.stdout


def test_the_result_as_json(url: str, models: Database, task: None):
    created = answer("select", "mine", "--no-wait", "--seed", "2", "--api", url)
    assert (created["state"], created["seed"], created["count"]) == ("queued", 2, 5)
    assert created["strategies"] == ["diverse"]
    work(models)
    assert answer("selections", "show", str(created["id"]), "--api", url)["metrics"]["base_loss"] == 3.0


def test_a_cancelled_selection_is_shown_as_cancelled(url: str, models: Database, task: None):
    created = answer("select", "mine", "--no-wait", "--api", url)
    assert run("cancel", str(created["job"]), "--api", url).exit_code == 0
    assert "cancelled" in run("selections", "show", str(created["id"]), "--api", url).stdout


def test_selections_are_listed_and_deleted(url: str, models: Database, task: None):
    selection_id = answer("select", "mine", "--no-wait", "--api", url)["id"]
    assert "queued" in run("selections", "--api", url).stdout
    assert run("selections", "delete", str(selection_id), "--api", url).exit_code == 0
    assert answer("selections", "--api", url)["selections"] == []


def test_an_unknown_task_is_an_error(url: str, models: Database):
    assert failure("select", "none", "--api", url).code == "task_not_found"


def test_a_composition_is_written_as_an_expression_that_can_be_parsed():
    members = [
        {"repo_id": name, "weight": weight} for name, weight in (("local/500", 1.25), ("a/b", -0.5), ("c/d", 1e-4))
    ]
    expression = _expression(members)
    assert expression == "1.25*'local/500' - 0.5*a/b"
    assert [(term.name.text, term.weight) for term in parse(expression)] == [("local/500", 1.25), ("a/b", -0.5)]
