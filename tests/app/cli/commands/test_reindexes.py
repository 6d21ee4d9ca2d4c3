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
from tests.support.reindexes import EXACT, contract, end, its_jobs, look, measure


def step(database: Database, number: int, failing: set[str]) -> None:
    """What the workers would do next; these models fail."""
    row = look(database, number)
    if row.stage == Stage.QUEUEING:
        reindex_service.queue(database, number, contract())
    for job in its_jobs(database, number):
        if job.state == JobState.QUEUED and job.model.repo_id in failing:
            end(database, job, JobState.FAILED, RepoNotFound.code)
        elif job.state == JobState.QUEUED:
            measure(database, job, [job.model_id, 1])
    reindex_service.await_jobs(database, number)
    if row.state == ReindexState.RUNNING and not reindex_service.carry(database, number):
        readiness.build(database, number, EXACT)


@pytest.fixture
def worker(database: Database) -> Iterator[set[str]]:
    """Somebody who works on reindexes; the models named here fail."""
    failing: set[str] = set()
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.05):
            with database.transaction() as session:
                active = reindexes.active(session)
            if active is not None:
                step(database, active.id, failing)

    for name in range(5):
        entries.put(database, f"a/m{name}", [1, name])
    thread = threading.Thread(target=work)
    thread.start()
    yield failing
    over.set()
    thread.join()


def test_a_reindex_is_waited_for(url: str, worker: set[str]):
    told = json.loads(run("reindex", "--all", "--api", url, "--json"))
    assert (told["state"], told["total"], told["jobs"]["done"]) == ("ready", 5, 5)
    assert told["drift"]["spaces"][0]["drift"]["models"] == 5


def test_people_are_shown_what_changed_and_what_failed(url: str, worker: set[str]):
    worker.add("a/m3")
    shown = run("reindex", "--base", "tiny/base", "--api", url)
    for words in (
        "ready",
        "repo_not_found",
        "a/m3",
        "nearest that stay",
        "90-100% stay",
        "deltadex reindexes switch 1",
    ):
        assert words in " ".join(shown.split())


def test_it_is_switched_to_and_rolled_back(url: str, worker: set[str]):
    run("reindex", "--all", "--api", url)
    states = [
        json.loads(run("reindexes", verb, "1", "--api", url, "--json"))["state"]
        for verb in ("switch", "show", "rollback")
    ]
    assert states == ["switched", "switched", "rolled_back"]
    assert "rolled_back" in run("reindexes", "--api", url)


def test_one_that_nobody_works_on_is_cancelled_and_listed(url: str):
    told = json.loads(run("reindex", "--state", "no_shift", "--no-wait", "--api", url, "--json"))
    assert (told["state"], told["selection"]) == ("running", {"state": "no_shift"})
    assert json.loads(run("reindexes", "cancel", "1", "--api", url, "--json"))["state"] == "cancelled"
    assert len(json.loads(run("reindexes", "--api", url, "--json"))["reindexes"]) == 1
