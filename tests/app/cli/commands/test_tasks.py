from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from catalog.archives import repository as archives
from catalog.database import Database
from catalog.errors import InvalidExamples
from catalog.tasks import repository as tasks
from tests.support import catalog as entries
from tests.support.cli import answer, failure, run
from tests.support.task_commands import work
from tests.support.task_requests import ROWS
from workers.process.zip_archive import packed


@pytest.fixture
def models(database: Database) -> Database:
    for number, name in enumerate(("law", "math", "code")):
        entries.put(database, f"owner/{name}", np.eye(3)[number])
    return database


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS))
    return path


def test_it_waits_for_the_answer_and_shows_it(url: str, models: Database, file: Path):
    with ThreadPoolExecutor(1) as pool:
        worker = pool.submit(work, models)
        result = run("task", str(file), "-k", "2", "--verify", "2", "--api", url)
        worker.result()
    assert result.exit_code == 0, result.output
    assert "owner/law" in result.stdout
    assert "owner/code" not in result.stdout
    assert "100%" in result.stdout
    assert "does better than the base" in result.stdout


def test_a_line_ends_where_json_lines_end(url: str, models: Database, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    line = json.dumps({"instruction": "a\u2028b", "output": "c"}, ensure_ascii=False)
    path.write_text("\n".join([line] * 5), encoding="utf-8")
    assert answer("task", str(path), "--no-wait", "--api", url)["task"]["examples"] == 5


@pytest.mark.parametrize("more", ['"score": NaN', '"output": "half \\ud83d"'])
def test_what_pandas_and_cut_emojis_leave_does_no_harm(url: str, models: Database, tmp_path: Path, more: str):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([f'{{"instruction": "a", "output": "c", {more}}}'] * 5), encoding="utf-8")
    assert answer("task", str(path), "--no-wait", "--api", url)["task"]["examples"] == 5


def test_the_answer_as_json(url: str, models: Database, file: Path):
    asked = answer("task", str(file), "--no-wait", "--name", "mine", "--api", url)["task"]
    assert (asked["name"], asked["runs"][0]["state"]) == ("mine", "queued")
    work(models)
    shown = answer("tasks", "show", str(asked["id"]), "--api", url)
    assert next(each["repo_id"] for each in shown["bases"][0]["neighbors"]) == "owner/law"


def test_a_task_that_failed_is_an_error_of_the_command(url: str, models: Database, file: Path):
    asked = answer("task", str(file), "--no-wait", "--api", url)["task"]
    assert run("cancel", str(asked["runs"][0]["job"]), "--api", url).exit_code == 0
    shown = run("tasks", "show", str(asked["id"]), "--api", url)
    assert "cancelled" in shown.stdout


def test_tasks_are_listed_and_forgotten(url: str, models: Database, file: Path):
    number = answer("task", str(file), "--no-wait", "--name", "mine", "--api", url)["task"]["id"]
    assert "mine" in run("tasks", "--api", url).stdout
    assert run("tasks", "delete", str(number), "--api", url).exit_code == 0
    assert answer("tasks", "--api", url)["tasks"] == []


def test_an_adapter_is_unpacked_into_a_folder(url: str, models: Database, file: Path, tmp_path: Path):
    asked = answer("task", str(file), "--no-wait", "--keep-adapter", "--api", url)["task"]
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "adapter_config.json").write_text("{}")
    with packed(tmp_path / "made") as archive, models.transaction() as session:
        archives.store(session, tasks.get(session, asked["id"]).runs[0].model_id, archive)
    command = ("tasks", "download", str(asked["id"]), "--to", str(tmp_path / "here"), "--api", url)
    assert run(*command).exit_code == 0
    assert [each.name for each in (tmp_path / "here").iterdir()] == ["adapter_config.json"]
    assert failure(*command).code == "invalid_input"  # something is there now


def test_a_download_of_nothing_is_an_error(url: str, models: Database, file: Path, tmp_path: Path):
    asked = answer("task", str(file), "--no-wait", "--api", url)["task"]
    error = failure("tasks", "download", str(asked["id"]), "--to", str(tmp_path / "here"), "--api", url)
    assert error.code == "archive_not_found"
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize(("content", "said"), [(b"{", "Line 1 is not JSON"), (b"\xff\xfe", "no text in UTF-8")])
def test_a_file_that_holds_no_examples_is_told(url: str, tmp_path: Path, content: bytes, said: str):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    error = failure("task", str(path), "--api", url)
    assert error.code == InvalidExamples.code
    assert said in str(error)
