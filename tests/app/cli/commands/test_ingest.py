from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import redis
from cryptography.fernet import Fernet
from sqlalchemy import update
from typer.testing import CliRunner

from app import cli
from app.cli import console, render
from app.deployment.embedded import EmbeddedServers
from catalog.auth.viewer import ADMIN
from catalog.database import Database
from catalog.errors import CatalogError, CorruptWeights, InvalidRepoId, NameTaken, NotRunning
from catalog.jobs.repository import attempts, jobs
from catalog.models.repository import models
from catalog.queue import ENCODE_QUEUE
from catalog.settings import settings
from catalog.spaces import repository as spaces
from catalog.spaces.repository import BaseMeasurement
from catalog.tables import Job, JobState, Revision, Source
from tests.support import catalog as entries
from tests.support.cli import answer, failure, run
from tests.support.keys import add_key
from tests.support.ports import free_port
from tests.support.waiting import wait_until


@pytest.fixture
def fan(database: Database, url: str) -> list[str]:
    """Four models with growing angles to the first, returned once the API finds them."""
    names = [f"fan/m{number}" for number in range(4)]
    for number, name in enumerate(names):
        entries.put(database, name, [3 - number, number])
    with console.connect(url) as client:
        wait_until(
            lambda: len(client.post("/v1/search", {"vector": [1, 1]})["neighbors"]) == len(names), "all are found"
        )
    return names


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The settings of a machine on which no server runs."""
    for name in ("DATABASE_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DELTADEX_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("DELTADEX_PORT", str(free_port()))
    settings.cache_clear()
    yield
    monkeypatch.undo()
    settings.cache_clear()


def test_repo_is_submitted(url: str, database: Database):
    [job] = answer("add", "owner/model", "--revision", "main", "--no-wait", "--api", url)["jobs"]

    assert (job["repo_id"], job["revision"], job["state"]) == ("owner/model", "main", "queued")
    with database.transaction() as session:
        assert jobs.get(session, job["id"]).model.source == Source.HUB


def test_repos_and_folders_are_submitted_with_the_named_base(url: str, tmp_path: Path):
    jobs = answer("add", "owner/model", str(tmp_path), "--base", "o/base", "--no-wait", "--api", url)["jobs"]
    assert [job["base"] for job in jobs] == ["o/base", "o/base"]


def test_invalid_base_is_refused_before_anything_is_submitted(url: str, database: Database):
    error = failure("add", "owner/model", "--base", "/models/llama", "--no-wait", "--api", url)
    assert isinstance(error, InvalidRepoId)
    with database.transaction() as session:
        assert jobs.list_page(session) == []


def test_base_of_a_job_is_printed(url: str):
    assert "owner/model on o/base" in run("add", "owner/model", "--base", "o/base", "--no-wait", "--api", url).stdout


def test_jobs_are_printed_as_a_table(url: str):
    result = run("add", "owner/model", "--no-wait", "--api", url)
    assert result.exit_code == 0
    assert "owner/model" in result.stdout
    assert "queued" in result.stdout


def test_folder_is_submitted_without_the_api(url: str, database: Database, tmp_path: Path):
    (tmp_path / "mine").mkdir()

    [job] = answer("add", str(tmp_path / "mine"), "--no-wait", "--api", url)["jobs"]

    assert (job["repo_id"], job["state"]) == ("local/mine", "queued")
    with database.transaction() as session:
        assert models.get(session, "local/mine").folder == str(tmp_path / "mine")


def test_folder_takes_the_given_name(url: str, tmp_path: Path):
    [job] = answer("add", str(tmp_path), "--name", "other", "--no-wait", "--api", url)["jobs"]
    assert job["repo_id"] == "local/other"


def test_repos_and_folders_keep_their_order(url: str, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    jobs = answer("add", "a/one", str(tmp_path / "mine"), "a/two", "--no-wait", "--api", url)["jobs"]
    assert [job["repo_id"] for job in jobs] == ["a/one", "local/mine", "a/two"]


def test_target_that_exists_as_a_folder_is_a_folder_without_hub_option(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "owner" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    [folder] = answer("add", "owner/model", "--no-wait", "--api", url)["jobs"]
    [repo] = answer("add", "owner/model", "--hub", "--no-wait", "--api", url)["jobs"]
    assert (folder["repo_id"], repo["repo_id"]) == ("local/model", "owner/model")


def test_name_of_another_folder_is_refused(url: str, tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / name / "adapter").mkdir(parents=True)
    answer("add", str(tmp_path / "one" / "adapter"), "--no-wait", "--api", url)

    error = failure("add", str(tmp_path / "two" / "adapter"), "--no-wait", "--api", url)

    assert isinstance(error, NameTaken)


def test_name_option_requires_exactly_one_folder(url: str, tmp_path: Path):
    for targets in (["a/b"], [str(tmp_path), str(tmp_path)]):
        result = run("add", *targets, "--name", "x", "--no-wait", "--api", url)
        assert (result.exit_code, "--name" in result.output) == (2, True)


@pytest.mark.parametrize(("state", "exit_code"), [(JobState.DONE, 0), (JobState.FAILED, 1)])
def test_add_waits_for_the_job_and_reports_its_state(url: str, database: Database, state: JobState, exit_code: int):
    worker = entries.put_worker(database)

    def list_jobs() -> list[Job]:
        with database.transaction() as session:
            return jobs.list_page(session)

    def work() -> int:
        [job] = wait_until(list_jobs, "the job is there")
        entries.claim(database, job.id, worker)
        with database.transaction() as session:
            if state == JobState.DONE:
                attempts.finish(session, job.id, worker, "sha")
            else:
                attempts.fail(session, job.id, worker, CorruptWeights("It is cut off."))
        return job.id

    with ThreadPoolExecutor(1) as pool:
        worked = pool.submit(work)
        result = run("add", "owner/model", "--api", url, "--json")

    assert result.exit_code == exit_code
    [ended] = json.loads(result.stdout)["jobs"]
    assert (ended["id"], ended["state"]) == (worked.result(), state)


@pytest.mark.usefixtures("fan")
def test_low_confidence_neighbors_are_shown_on_request(url: str, database: Database):
    with database.transaction() as session:
        table = BaseMeasurement(np.zeros((5, 2), np.float32), 2.9)
        spaces.store_base_measurement(session, entries.SPACE, entries.BASE, "b" * 40, table)
    assert answer("neighbors", "fan/m0", "--api", url)["neighbors"] == []
    assert len(answer("neighbors", "fan/m0", "--include-low-confidence", "--api", url)["neighbors"]) == 3


def test_submitted_base_of_a_model_is_shown(url: str, database: Database):
    entries.put(database, "owner/model", [1, 0])
    with database.transaction() as session:
        evidence = {"source": "alias", "claim": "submitted", "submitted_base": "o/mirror", "declared": None}
        session.execute(update(Revision).values(base_evidence=evidence))
    shown = run("show", "owner/model", "--api", url).stdout.split()
    assert shown[shown.index("submitted") + 1] == "o/mirror"


def test_same_target_twice_is_one_job(url: str):
    first, second = answer("add", "a/b", "a/b", "--no-wait", "--api", url)["jobs"]
    assert first == second


def test_status_shows_one_job(url: str, database: Database):
    job = entries.put_job(database, "owner/model")
    assert answer("status", str(job.id), "--api", url)["repo_id"] == "owner/model"


def test_status_shows_the_catalog(url: str, database: Database):
    entries.put(database, "a/b", [1, 0])
    job, worker = entries.put_job(database, "a/c"), entries.put_worker(database)

    status = answer("status", "--api", url)

    assert status["readiness"]["ready"] is True
    assert (status["stats"]["models"]["indexed"], status["stats"]["jobs"]["queued"]) == (1, 1)
    assert [item["id"] for item in status["stats"]["workers"]] == [worker]
    assert [item["id"] for item in status["jobs"]] == [job.id]


def test_status_is_printed_as_a_table(url: str, database: Database):
    entries.put_job(database, "a/b")
    result = run("status", "--api", url)
    assert result.exit_code == 0
    for word in ("database", "broker", "index", "no live worker", "a/b", "queued"):
        assert word in result.stdout


def test_neighbors_are_printed_nearest_first(url: str, fan: list[str]):
    neighbors = answer("neighbors", "fan/m0", "--api", url)["neighbors"]
    assert [neighbor["repo_id"] for neighbor in neighbors] == fan[1:]
    assert neighbors[0]["similarity"] == pytest.approx(2 / 5**0.5, abs=1e-6)


def test_neighbors_are_limited_by_options(url: str, fan: list[str]):
    assert len(answer("neighbors", "fan/m0", "-k", "2", "--api", url)["neighbors"]) == 2
    assert len(answer("neighbors", "fan/m0", "--min-similarity", "0.8", "--api", url)["neighbors"]) == 1
    with_options = answer("neighbors", "fan/m0", "--space", "activations", "--base", entries.BASE, "--api", url)
    assert with_options == answer("neighbors", "fan/m0", "--api", url)
    assert answer("neighbors", "fan/m0", "--base", "tiny/other", "--api", url)["neighbors"] == []


def test_neighbors_are_printed_as_a_table(url: str, fan: list[str]):
    result = run("neighbors", "fan/m0", "--api", url)
    assert result.exit_code == 0
    assert "fan/m1" in result.stdout
    assert "0.8944" in result.stdout


@pytest.mark.parametrize("name", ["nobody", "a/b?k=1", "a/b/../../../v1/stats", "a/b#x"])
def test_invalid_repo_id_is_never_put_into_a_url(url: str, name: str):
    assert isinstance(failure("neighbors", name, "--api", url), InvalidRepoId)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["neighbors", "no/body"], "model_not_found"),
        (["status", "999"], "job_not_found"),
        (["add", "local/x", "--no-wait"], "invalid_repo_id"),
        (["add", "not a repo", "--no-wait"], "invalid_repo_id"),
        (["add", "a/b", "--revision", "../x", "--no-wait"], "invalid_revision"),
        (["neighbors", "a/b", "-k", "5000"], "invalid_input"),
    ],
)
def test_api_error_keeps_its_code(url: str, arguments: list[str], code: str):
    error = failure(*arguments, "--api", url)
    assert error.code == code
    assert str(error) not in ("", code)


def main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    """Run the command line as a shell does. Returns the exit code."""
    monkeypatch.setattr("sys.argv", ["deltadex", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_error_is_printed_with_code_and_message(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert main(monkeypatch, "neighbors", "no/body", "--api", url, "--json") == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("model_not_found: no/body is not in this catalog")
    assert printed.out == ""


@pytest.mark.parametrize("target", ["[/red]", "a/[bold]b"])
def test_markup_in_an_error_is_not_interpreted(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], target: str
):
    assert main(monkeypatch, "add", target, "--no-wait", "--api", url) == 1
    assert f"invalid_repo_id: '{target}' is not a repo id" in capsys.readouterr().err


def test_markup_in_the_error_of_a_job_is_not_interpreted(capsys: pytest.CaptureFixture[str]):
    job = {"id": 1, "repo_id": "a/b", "base": None, "state": "failed", "progress": 0, "attempts": 1}
    job["error"] = {"code": "corrupt_weights", "message": "[/x] [red]cut"}
    render.Console(width=200).print(render.jobs([job]))
    assert "corrupt_weights: [/x] [red]cut" in capsys.readouterr().out


def test_successful_command_exits_with_zero(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert main(monkeypatch, "status", "--api", url, "--json") == 0
    assert json.loads(capsys.readouterr().out)["readiness"]["ready"] is True


@pytest.mark.parametrize("arguments", [["status"], ["neighbors", "a/b"], ["add", "a/b", "--no-wait"]])
def test_unreachable_api_is_reported_as_not_running(
    nothing_runs: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
):
    assert main(monkeypatch, *arguments) == 1
    assert "not_running: No API answers at" in capsys.readouterr().err


def test_folder_cannot_be_added_without_a_database_url(url: str, nothing_runs: None, tmp_path: Path):
    error = failure("add", str(tmp_path), "--no-wait", "--api", url)
    assert isinstance(error, NotRunning)
    assert "DATABASE_URL" in str(error)


def test_response_of_another_server_is_an_error(tmp_path: Path):
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>[]</html>")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            error = failure("status", "1", "--api", f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()
    assert "without a JSON object" in str(error)


def test_running_deltadex_is_found_through_its_run_file(url: str, nothing_runs: None, tmp_path: Path):
    (tmp_path / "run.json").write_text(json.dumps({"api_url": url}))
    assert answer("status")["readiness"]["checks"]["database"]["ok"] is True


def test_submission_from_the_command_line_sends_a_message(url: str, tmp_path: Path, servers: EmbeddedServers):
    answer("add", str(tmp_path), "--name", "mine", "--no-wait", "--api", url)
    with redis.Redis.from_url(servers.redis_url) as broker:
        assert broker.llen(ENCODE_QUEUE) == 1


TOKEN = "hf_recognizable"


@pytest.fixture
def url_with_tokens(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an API that accepts Hub tokens; sets an API key."""
    monkeypatch.setenv("DELTADEX_TOKEN_KEY", Fernet.generate_key().decode())
    monkeypatch.setenv("DELTADEX_API_KEY", "a long key of my own")
    settings.cache_clear()
    add_key(request.getfixturevalue("database"), "a long key of my own")
    yield request.getfixturevalue("url")
    settings.cache_clear()


def has_token(database: Database) -> list[bool]:
    """Whether each job has a token."""
    with database.transaction() as session:
        return [job.token is not None for job in jobs.list_page(session, viewer=ADMIN)]


def test_token_is_read_from_standard_input(url_with_tokens: str, database: Database):
    arguments = ["add", "owner/model", "--token-stdin", "--no-wait", "--json", "--api", url_with_tokens]
    result = CliRunner().invoke(cli.cli, arguments, input=f"{TOKEN}\n")
    assert result.exit_code == 0, result.output
    assert TOKEN not in result.output
    assert has_token(database) == [True]


def test_token_is_read_from_the_environment(url_with_tokens: str, database: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DELTADEX_USER_TOKEN", TOKEN)
    settings.cache_clear()
    answer("add", "owner/model", "--no-wait", "--api", url_with_tokens)
    assert has_token(database) == [True]


def test_token_with_a_folder_or_in_an_invalid_form_is_refused(url: str, tmp_path: Path):
    assert run("add", str(tmp_path), "--token-stdin", "--api", url).exit_code == 2
    error = CliRunner().invoke(cli.cli, ["add", "a/b", "--token-stdin", "--api", url], input="two words\n").exception
    assert isinstance(error, CatalogError)
    assert error.code == "invalid_hub_token"
