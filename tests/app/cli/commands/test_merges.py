from __future__ import annotations

import io
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from catalog.auth.viewer import PUBLIC
from catalog.database import Database
from catalog.merges import service as merge_service
from tests.support import catalog as entries
from tests.support.cli import answer, failure, run
from tests.support.merge_requests import finish
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


def work(database: Database) -> None:
    """Wait for a merge, and do what a worker would."""
    found = wait_until(lambda: merge_service.page(database, PUBLIC, before=None, limit=1), "it is asked for")
    [(merge, job)] = found
    finish(database, {"id": merge.id, "job": job.id}, [1, 0.9, 0.1], archive())


def test_it_waits_for_what_is_made_and_unpacks_it(url: str, models: Database, tmp_path: Path):
    with ThreadPoolExecutor(1) as pool:
        worker = pool.submit(work, models)
        result = run("merge", *PARTS, "--weights", "1,0.5", "--to", str(tmp_path / "made"), "--api", url)
        worker.result()
    assert result.exit_code == 0, result.output
    assert "cosine to the prediction 0.9000" in result.stdout
    assert [each.name for each in (tmp_path / "made").iterdir()] == ["adapter_config.json"]


def test_nothing_is_asked_where_the_folder_is_not_free(url: str, models: Database, tmp_path: Path):
    (tmp_path / "made.txt").write_text("mine")
    error = failure("merge", *PARTS, "--to", str(tmp_path), "--api", url)
    assert (error.code, "new or empty" in str(error)) == ("invalid_input", True)
    assert answer("merges", "--api", url)["merges"] == []


def test_a_plan_makes_nothing(url: str, models: Database):
    result = run("merge", *PARTS, "--method", "ties", "--density", "0.4", "--plan", "--api", url)
    assert result.exit_code == 0, result.output
    assert "by ties" in result.stdout
    assert "cross_terms" in result.stderr
    assert answer("merges", "--api", url)["merges"] == []
    found = answer("merge", *PARTS, "--weights", "2,-1", "--plan", "--api", url)
    assert found["prediction"] == [2.0, -1.0, 0.0]


def test_merges_are_listed_shown_downloaded_and_forgotten(url: str, models: Database, tmp_path: Path):
    number = str(answer("merge", *PARTS, "--no-wait", "--name", "both", "--api", url)["merge"]["id"])
    error = failure("merges", "download", number, "--to", str(tmp_path / "made"), "--api", url)
    assert error.code == "merge_not_done"
    work(models)
    assert "both" in run("merges", "--api", url).stdout
    assert "delta_activations" in run("merges", "show", number, "--api", url).stdout
    assert run("merges", "download", number, "--to", str(tmp_path / "made"), "--api", url).exit_code == 0
    assert (tmp_path / "made" / "adapter_config.json").read_text() == "{}"
    assert run("merges", "delete", number, "--api", url).exit_code == 0
    assert answer("merges", "--api", url)["merges"] == []


def test_a_merge_that_was_cancelled_is_shown_as_such(url: str, models: Database):
    asked = answer("merge", *PARTS, "--no-wait", "--api", url)["merge"]
    assert run("cancel", str(asked["job"]), "--api", url).exit_code == 0
    assert "cancelled" in run("merges", "show", str(asked["id"]), "--api", url).stdout


@pytest.mark.parametrize("wrong", [("--weights", "1,half"), ("--plan", "--to", "here")])
def test_a_slip_is_told_before_anything_is_asked(url: str, models: Database, wrong: tuple[str, ...]):
    assert run("merge", *PARTS, *wrong, "--api", url).exit_code == 2


@pytest.mark.parametrize("weights", ["nan,1", "inf,1", "1e12,1"])
def test_weights_that_are_none_are_refused(url: str, models: Database, weights: str):
    assert failure("merge", *PARTS, "--weights", weights, "--api", url).code == "invalid_input"
