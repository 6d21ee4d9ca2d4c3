from __future__ import annotations

import io
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from catalog.auth.viewer import ADMIN
from catalog.database import Database
from catalog.merges import service as merge_service
from tests.support import catalog as entries
from tests.support.cli import answer, failure, run
from tests.support.merge_requests import finish_merge
from tests.support.waiting import wait_until

PARTS = ("owner/law", "owner/math")


@pytest.fixture
def models(database: Database) -> Database:
    for number, name in enumerate(("law", "math", "code")):
        entries.put(database, f"owner/{name}", np.eye(3)[number])
    entries.put(database, "owner/mix", [1, 1, 0.2])
    return database


def archive() -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as packed:
            packed.writestr("adapter_config.json", "{}")
        return file.getvalue()


def finish_next_merge(database: Database) -> None:
    """Wait for a merge, and finish its job."""
    [(merge, job)] = wait_until(
        lambda: merge_service.list_page(database, ADMIN, before=None, limit=1), "the merge is created"
    )
    finish_merge(database, {"id": merge.id, "job": job.id}, [1, 0.9, 0.1], archive())


def test_merge_waits_for_the_adapter_and_unpacks_it(url: str, models: Database, tmp_path: Path):
    with ThreadPoolExecutor(1) as pool:
        worker = pool.submit(finish_next_merge, models)
        result = run("merge", *PARTS, "--weights", "1,0.5", "--to", str(tmp_path / "adapter"), "--api", url)
        worker.result()
    assert result.exit_code == 0, result.output
    assert "cosine to the prediction 0.9000" in result.stdout
    assert [path.name for path in (tmp_path / "adapter").iterdir()] == ["adapter_config.json"]


def test_no_merge_is_created_if_the_folder_is_not_empty(url: str, models: Database, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    error = failure("merge", *PARTS, "--to", str(tmp_path), "--api", url)
    assert (error.code, "an empty folder" in str(error)) == ("invalid_input", True)
    assert answer("merges", "--api", url)["merges"] == []


def test_plan_creates_no_merge(url: str, models: Database):
    result = run("merge", *PARTS, "--method", "ties", "--density", "0.4", "--plan", "--api", url)
    assert result.exit_code == 0, result.output
    assert "by ties" in result.stdout
    assert "cross_terms" in result.stderr
    assert answer("merges", "--api", url)["merges"] == []
    plan = answer("merge", *PARTS, "--weights", "2,-1", "--plan", "--api", url)
    assert plan["prediction"] == [2.0, -1.0, 0.0]


def test_merges_are_listed_shown_downloaded_and_deleted(url: str, models: Database, tmp_path: Path):
    number = str(answer("merge", *PARTS, "--no-wait", "--name", "both", "--api", url)["merge"]["id"])
    error = failure("merges", "download", number, "--to", str(tmp_path / "adapter"), "--api", url)
    assert error.code == "merge_not_finished"
    finish_next_merge(models)
    assert "both" in run("merges", "--api", url).stdout
    assert "delta_activations" in run("merges", "show", number, "--api", url).stdout
    assert run("merges", "download", number, "--to", str(tmp_path / "adapter"), "--api", url).exit_code == 0
    assert (tmp_path / "adapter" / "adapter_config.json").read_text() == "{}"
    assert run("merges", "delete", number, "--api", url).exit_code == 0
    assert answer("merges", "--api", url)["merges"] == []


def test_cancelled_merge_is_shown_as_cancelled(url: str, models: Database):
    merge = answer("merge", *PARTS, "--no-wait", "--api", url)["merge"]
    assert run("cancel", str(merge["job"]), "--api", url).exit_code == 0
    assert "cancelled" in run("merges", "show", str(merge["id"]), "--api", url).stdout


@pytest.mark.parametrize("options", [("--weights", "1,half"), ("--plan", "--to", "here")])
def test_invalid_options_exit_with_2(url: str, models: Database, options: tuple[str, ...]):
    assert run("merge", *PARTS, *options, "--api", url).exit_code == 2


@pytest.mark.parametrize("weights", ["nan,1", "inf,1", "1e12,1"])
def test_weights_out_of_range_are_refused(url: str, models: Database, weights: str):
    assert failure("merge", *PARTS, "--weights", weights, "--api", url).code == "invalid_input"
