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
from tests.support.task_commands import finish_next_task
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


def test_task_waits_for_the_answer_and_shows_it(url: str, models: Database, file: Path):
    with ThreadPoolExecutor(1) as pool:
        worker = pool.submit(finish_next_task, models)
        result = run("task", str(file), "-k", "2", "--verify", "2", "--api", url)
        worker.result()
    assert result.exit_code == 0, result.output
    assert "owner/law" in result.stdout
    assert "owner/code" not in result.stdout
    assert "100%" in result.stdout
    assert "does better than the base" in result.stdout


def test_line_separators_within_strings_do_not_end_a_line(url: str, models: Database, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    line = json.dumps({"instruction": "a\u2028b", "output": "c"}, ensure_ascii=False)
    path.write_text("\n".join([line] * 5), encoding="utf-8")
    assert answer("task", str(path), "--no-wait", "--api", url)["task"]["examples"] == 5


@pytest.mark.parametrize("field", ['"score": NaN', '"output": "half \\ud83d"'])
def test_nan_fields_and_truncated_emojis_are_accepted(url: str, models: Database, tmp_path: Path, field: str):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([f'{{"instruction": "a", "output": "c", {field}}}'] * 5), encoding="utf-8")
    assert answer("task", str(path), "--no-wait", "--api", url)["task"]["examples"] == 5


def test_answer_is_printed_as_json(url: str, models: Database, file: Path):
    task = answer("task", str(file), "--no-wait", "--name", "mine", "--api", url)["task"]
    assert (task["name"], task["runs"][0]["state"]) == ("mine", "queued")
    finish_next_task(models)
    shown = answer("tasks", "show", str(task["id"]), "--api", url)
    assert next(neighbor["repo_id"] for neighbor in shown["bases"][0]["neighbors"]) == "owner/law"


def test_cancelled_task_is_shown_as_cancelled(url: str, models: Database, file: Path):
    task = answer("task", str(file), "--no-wait", "--api", url)["task"]
    assert run("cancel", str(task["runs"][0]["job"]), "--api", url).exit_code == 0
    result = run("tasks", "show", str(task["id"]), "--api", url)
    assert "cancelled" in result.stdout


def test_tasks_are_listed_and_deleted(url: str, models: Database, file: Path):
    number = answer("task", str(file), "--no-wait", "--name", "mine", "--api", url)["task"]["id"]
    assert "mine" in run("tasks", "--api", url).stdout
    assert run("tasks", "delete", str(number), "--api", url).exit_code == 0
    assert answer("tasks", "--api", url)["tasks"] == []


def test_adapter_is_unpacked_into_a_folder(url: str, models: Database, file: Path, tmp_path: Path):
    task = answer("task", str(file), "--no-wait", "--keep-adapter", "--api", url)["task"]
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with packed(tmp_path / "adapter") as archive, models.transaction() as session:
        archives.store(session, tasks.get(session, task["id"]).runs[0].model_id, archive)
    command = ("tasks", "download", str(task["id"]), "--to", str(tmp_path / "here"), "--api", url)
    assert run(*command).exit_code == 0
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["adapter_config.json"]
    assert failure(*command).code == "invalid_input"  # the folder is no longer empty


def test_download_without_keep_adapter_fails(url: str, models: Database, file: Path, tmp_path: Path):
    task = answer("task", str(file), "--no-wait", "--api", url)["task"]
    error = failure("tasks", "download", str(task["id"]), "--to", str(tmp_path / "here"), "--api", url)
    assert error.code == "archive_not_found"
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize(("content", "message"), [(b"{", "Line 1 is not JSON"), (b"\xff\xfe", "not UTF-8 text")])
def test_unreadable_file_fails_with_invalid_examples(url: str, tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    error = failure("task", str(path), "--api", url)
    assert error.code == InvalidExamples.code
    assert message in str(error)
