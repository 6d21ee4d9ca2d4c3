from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest

from catalog.database import Database
from catalog.errors import RepoNotFound
from catalog.reindexes import readiness
from catalog.reindexes import service as reindex_service
from catalog.reindexes.repository import reindexes
from catalog.tables import JobState, ReindexState, Stage
from tests.support import catalog as entries
from tests.support.crawl_commands import run
from tests.support.reindexes import EXACT_BYTES, contract, end_job, get_reindex, list_jobs, measure_job


def step(database: Database, number: int, failing: set[str]) -> None:
    """Do what the workers would do next; the jobs of the models in `failing` fail."""
    row = get_reindex(database, number)
    if row.stage == Stage.QUEUEING:
        reindex_service.queue_page(database, number, contract())
    for job in list_jobs(database, number):
        if job.state == JobState.QUEUED and job.model.repo_id in failing:
            end_job(database, job, JobState.FAILED, RepoNotFound.code)
        elif job.state == JobState.QUEUED:
            measure_job(database, job, [job.model_id, 1])
    reindex_service.finish_measuring(database, number)
    if row.state == ReindexState.RUNNING and not reindex_service.backfill_spaces(database, number):
        readiness.make_ready(database, number, EXACT_BYTES)


@pytest.fixture
def worker(database: Database) -> Iterator[set[str]]:
    """A thread that runs reindexes; the jobs of the models in the set fail."""
    failing: set[str] = set()
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.05):
            with database.transaction() as session:
                active = reindexes.find_active(session)
            if active is not None:
                step(database, active.id, failing)

    for name in range(5):
        entries.put(database, f"a/m{name}", [1, name])
    thread = threading.Thread(target=work)
    thread.start()
    yield failing
    stop.set()
    thread.join()


def test_reindex_waits_until_it_is_ready(url: str, worker: set[str]):
    reindex = json.loads(run("reindex", "--all", "--api", url, "--json"))
    assert (reindex["state"], reindex["total"], reindex["jobs"]["done"]) == ("ready", 5, 5)
    assert reindex["drift"]["spaces"][0]["drift"]["models"] == 5


def test_reindex_prints_failures_and_drift(url: str, worker: set[str]):
    worker.add("a/m3")
    output = run("reindex", "--base", "tiny/base", "--api", url)
    for words in (
        "ready",
        "repo_not_found",
        "a/m3",
        "nearest that stay",
        "90-100% stay",
        "deltadex reindexes cutover 1",
    ):
        assert words in " ".join(output.split())


def test_reindex_cuts_over_and_rolls_back(url: str, worker: set[str]):
    run("reindex", "--all", "--api", url)
    states = [
        json.loads(run("reindexes", command, "1", "--api", url, "--json"))["state"]
        for command in ("cutover", "show", "rollback")
    ]
    assert states == ["cut_over", "cut_over", "rolled_back"]
    assert "rolled_back" in run("reindexes", "--api", url)


def test_reindex_without_workers_can_be_cancelled_and_listed(url: str):
    reindex = json.loads(run("reindex", "--state", "no_shift", "--no-wait", "--api", url, "--json"))
    assert (reindex["state"], reindex["selection"]) == ("running", {"state": "no_shift"})
    assert json.loads(run("reindexes", "cancel", "1", "--api", url, "--json"))["state"] == "cancelled"
    assert len(json.loads(run("reindexes", "--api", url, "--json"))["reindexes"]) == 1
