from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from app.cli.commands import ingest as ingest_commands
from catalog.auth.viewer import hash_key
from catalog.database import Database
from catalog.errors import HubRateLimited, HubUnavailable, JobFinished
from catalog.jobs import control as job_control
from catalog.jobs.repository import attempts, jobs
from catalog.jobs.repository.attempts import FIRST_KEPT, LAST_KEPT
from catalog.settings import settings
from tests.support import catalog as entries
from tests.support.cli import answer, failure, run
from tests.support.keys import add_key
from tests.support.waiting import LIMIT


def put_failed(database: Database, name: str = "owner/model") -> int:
    job_id, worker = entries.put_job(database, name).id, entries.put_worker(database)
    entries.claim(database, job_id, worker)
    with database.transaction() as session:
        attempts.fail(session, job_id, worker, HubUnavailable("Away."))
    return job_id


def test_jobs_are_cancelled(url: str, database: Database):
    ids = [entries.put_job(database, f"a/{number}").id for number in range(2)]
    jobs = answer("cancel", *map(str, ids), "--api", url)["jobs"]
    assert [(job["id"], job["state"]) for job in jobs] == [(job_id, "cancelled") for job_id in ids]


def test_cancelling_a_failed_job_is_an_error(url: str, database: Database):
    error = failure("cancel", str(put_failed(database)), "--api", url)
    assert error.code == JobFinished.code


def test_job_is_retried(url: str, database: Database):
    job_id = put_failed(database)
    assert [job["state"] for job in answer("retry", str(job_id), "--api", url)["jobs"]] == ["queued"]


@pytest.mark.parametrize("code", ["hub_unavailable", "corrupt_weights"])
def test_jobs_are_retried_by_error_code(url: str, database: Database, code: str):
    put_failed(database)
    expected = 1 if code == "hub_unavailable" else 0
    assert answer("retry", "--code", code, "--api", url) == {"retried": expected}


def test_retry_takes_either_job_ids_or_an_error_code(url: str):
    for arguments in ((), ("1", "--code", "x")):
        assert run("retry", *arguments, "--api", url).exit_code == 2


def test_queue_is_paused_drained_and_resumed(url: str):
    assert answer("queue", "pause", "--api", url)["paused"]
    assert answer("queue", "drain", "--api", url)["drained"]
    assert [queue["paused"] for queue in answer("queue", "list", "--api", url)["queues"]] == [True, False]
    assert not answer("queue", "resume", "--api", url)["paused"]


def test_drain_waits_for_running_jobs(url: str, database: Database):
    job_id, worker = entries.put_job(database).id, entries.put_worker(database)
    entries.claim(database, job_id, worker)
    results: list[dict] = []
    thread = threading.Thread(target=lambda: results.append(answer("queue", "drain", "--api", url)))
    thread.start()
    thread.join(1)
    waited = thread.is_alive()
    with database.transaction() as session:
        attempts.finish(session, job_id, worker, "sha")
    thread.join(LIMIT)
    assert (waited, results[0]["drained"]) == (True, True)


def test_workers_are_listed(url: str, database: Database):
    worker = entries.put_worker(database)
    assert [listed["id"] for listed in answer("workers", "--api", url)["workers"]] == [worker]
    assert "here:1" in run("workers", "--api", url).stdout


def test_watch_prints_a_job_until_it_ends(url: str, database: Database):
    job_id, worker = entries.put_job(database).id, entries.put_worker(database)
    entries.claim(database, job_id, worker)
    with database.transaction() as session:
        attempts.finish(session, job_id, worker, "sha")

    result = run("status", str(job_id), "--watch", "--json", "--api", url)

    assert result.exit_code == 0
    assert [json.loads(line)["state"] for line in result.stdout.splitlines()] == ["done"]
    assert "owner/model" in run("status", str(job_id), "--watch", "--api", url).stdout


def test_status_says_how_many_attempts_of_a_long_history_are_left_out(url: str, database: Database):
    job, worker = entries.put_job(database), entries.put_worker(database)
    for _ in range(FIRST_KEPT + LAST_KEPT + 7):
        entries.claim(database, job.id, worker)
        with database.transaction() as session:
            attempts.retry(session, job.id, worker, HubRateLimited("Wait."), delay=0)
    entries.claim(database, job.id, worker)
    with database.transaction() as session:
        attempts.fail(session, job.id, worker, HubUnavailable("Away."))
    assert "8 more" in run("status", str(job.id), "--api", url).stdout


def test_status_shows_the_history_of_a_job(url: str, database: Database):
    printed = run("status", str(put_failed(database)), "--api", url).stdout
    assert "here:1" in printed


@pytest.fixture
def api_key(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sets an API key."""
    add_key(database, "an API key of a submitter")
    monkeypatch.setenv("DELTADEX_API_KEY", "an API key of a submitter")
    settings.cache_clear()
    yield
    monkeypatch.undo()
    settings.cache_clear()


def test_api_key_of_the_settings_is_sent(url: str, database: Database, api_key: None):
    [job] = answer("add", "owner/model", "--no-wait", "--api", url)["jobs"]
    with database.transaction() as session:
        assert jobs.get(session, job["id"]).submitter == hash_key("an API key of a submitter")


def test_queues_are_printed_as_a_table(url: str):
    assert "encode" in run("queue", "list", "--api", url).stdout


@pytest.fixture
def quota_of_two(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DELTADEX_MAX_ACTIVE_JOBS", "2")
    settings.cache_clear()
    yield
    monkeypatch.undo()
    settings.cache_clear()


def test_add_waits_while_the_quota_is_exceeded(quota_of_two: None, url: str, database: Database, monkeypatch):
    waits = []

    def cancel_newest(seconds: float) -> None:
        waits.append(seconds)
        with database.transaction() as session:
            newest = jobs.list_page(session)[0].id
        job_control.cancel(database, newest)

    monkeypatch.setattr(ingest_commands, "time", SimpleNamespace(sleep=cancel_newest))
    added = answer("add", "a/0", "a/1", "a/2", "--no-wait", "--api", url)["jobs"]
    assert [job["repo_id"] for job in added] == ["a/0", "a/1", "a/2"]
    assert waits == [ingest_commands.MAX_WAIT]
