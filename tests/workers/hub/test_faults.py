"""What becomes of a job while the Hub is not well, and of its files while the disk is not large."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import func, update

from app.deployment.embedded import EmbeddedServers
from catalog.database import Database
from catalog.errors import DatabaseUnavailable, DownloadStopped, HubRateLimited, HubUnavailable
from catalog.jobs.repository import attempts, claims, jobs
from catalog.jobs.submissions import submit_repo
from catalog.models.repo_ref import RepoRef
from catalog.tables import Job, JobState
from tests.support import pico
from tests.support.hub_server import Answer, ScriptedHub
from tests.support.outage import away
from tests.support.pipeline import assemble
from tests.support.waiting import LIMIT
from workers.hub.download_cache import evict
from workers.ingest.claimer import Pace
from workers.ingest.fetcher import Fetcher
from workers.ingest.pipeline import Pipeline
from workers.process.retries import LONGEST_DELAY, RetryPolicy

ATTEMPTS = 2


@dataclass
class Worker:
    database: Database
    fetcher: Fetcher
    pipeline: Pipeline
    worker_id: int

    def ingest(self, job_id: int) -> Job:
        """The job as one attempt leaves it."""
        with self.database.transaction() as session:
            session.execute(update(Job).values(available_at=func.now()))  # whatever an earlier attempt has to wait for
        self.pipeline.ingest(job_id)
        with self.database.transaction() as session:
            return jobs.get(session, job_id)


@pytest.fixture
def made(database: Database, pico_base: Path, tmp_path: Path, scripted_hub: ScriptedHub) -> Callable[[float], Worker]:
    """A worker that waits so many seconds for each answer."""

    def make(timeout: float) -> Worker:
        policy = {"pace": Pace(), "retries": RetryPolicy(ATTEMPTS, base=100)}
        made = assemble(database, pico_base, tmp_path, endpoint=scripted_hub.url, timeout=timeout, **policy)
        return Worker(database, made.fetcher, made.pipeline, made.worker_id)

    return make


@pytest.fixture
def worker(made: Callable[[float], Worker]) -> Worker:
    return made(LIMIT)


@pytest.fixture
def job(database: Database, scripted_hub: ScriptedHub, tmp_path: Path) -> Job:
    folder = pico.make_adapter(tmp_path / "good")
    scripted_hub.publishes("o/n", {path.name: path.read_bytes() for path in folder.iterdir()})
    return submit_repo(database, RepoRef("o/n"))


@pytest.mark.parametrize(
    "fault", [Answer(500), Answer(503), Answer(silent=True), Answer(429), Answer(cut=100, promised=10**6)]
)
def test_a_job_outlives_a_fault_of_the_hub(
    made: Callable[[float], Worker], job: Job, scripted_hub: ScriptedHub, fault: Answer
):
    worker = made(3 if fault.silent else LIMIT)
    scripted_hub.first("/o/n/resolve/", fault)
    first = worker.ingest(job.id)
    ended = first if first.state == JobState.DONE else worker.ingest(job.id)
    assert ended.state == JobState.DONE


def test_a_hub_that_stays_away_fails_the_job_in_the_end(worker: Worker, job: Job, scripted_hub: ScriptedHub):
    scripted_hub.disturb = lambda path: Answer(500)
    states = [worker.ingest(job.id).state for _ in range(ATTEMPTS)]
    assert states == [JobState.QUEUED, JobState.FAILED]


def test_a_hub_that_asks_to_slow_down_never_fails_a_job(worker: Worker, job: Job, scripted_hub: ScriptedHub):
    scripted_hub.disturb = lambda path: Answer(429)
    states = [worker.ingest(job.id).state for _ in range(ATTEMPTS + 1)]
    assert states == [JobState.QUEUED] * (ATTEMPTS + 1)
    scripted_hub.disturb = lambda path: None
    assert worker.ingest(job.id).state == JobState.DONE


def test_only_attempts_that_found_a_fault_count_against_a_job(worker: Worker, job: Job, scripted_hub: ScriptedHub):
    for _ in range(ATTEMPTS):  # taken from a worker that was stopped
        with worker.database.transaction() as session:
            claims.claim(session, job.id, worker.worker_id, 1)
            attempts.release(session, [worker.worker_id])
    scripted_hub.disturb = lambda path: Answer(429)
    assert worker.ingest(job.id).state == JobState.QUEUED

    scripted_hub.disturb = lambda path: Answer(500)
    states = [worker.ingest(job.id).state for _ in range(ATTEMPTS)]

    assert states == [JobState.QUEUED, JobState.FAILED]


def test_a_job_that_is_retried_by_hand_has_all_its_attempts_again(worker: Worker, job: Job, scripted_hub: ScriptedHub):
    scripted_hub.disturb = lambda path: Answer(500)
    for _ in range(ATTEMPTS):
        worker.ingest(job.id)
    with worker.database.transaction() as session:
        assert jobs.again(session, job.id, None)

    states = [worker.ingest(job.id).state for _ in range(ATTEMPTS)]

    assert states == [JobState.QUEUED, JobState.FAILED]


def test_a_retry_waits_as_long_as_the_hub_asks_and_a_little_more():
    policy = RetryPolicy(5, base=2)
    delays = [policy.delay(1, HubRateLimited("slow down", 60)) for _ in range(50)]
    assert min(delays) >= 60
    assert max(delays) <= 62
    assert len(set(delays)) > 1


def test_a_delay_does_not_grow_without_end():
    assert RetryPolicy(5, base=2).delay(1000, HubUnavailable("away")) <= 1.5 * LONGEST_DELAY


def test_what_a_job_fetched_is_not_evicted_before_it_is_done(worker: Worker, job: Job, tmp_path: Path):
    with worker.database.transaction() as session:
        (claimed,) = claims.claim(session, job.id, worker.worker_id, 1)
    fetched = worker.fetcher.fetch(claimed, worker.worker_id)
    assert evict(tmp_path / "downloads", 10**9) == 0
    fetched.hold.release()
    assert evict(tmp_path / "downloads", 10**9) > 0


def test_what_a_job_is_done_with_may_be_evicted(worker: Worker, job: Job, tmp_path: Path):
    assert worker.ingest(job.id).state == JobState.DONE
    assert evict(tmp_path / "downloads", 10**9) > 0


def test_a_fetch_that_failed_holds_nothing(worker: Worker, job: Job, scripted_hub: ScriptedHub, tmp_path: Path):
    scripted_hub.first("/o/n/resolve/" + scripted_hub.sha + "/adapter_model.safetensors", Answer(500))
    assert worker.ingest(job.id).state == JobState.QUEUED
    assert evict(tmp_path / "downloads", 10**9) > 0


def test_a_fetch_can_be_stopped(worker: Worker, job: Job):
    with worker.database.transaction() as session:
        (claimed,) = claims.claim(session, job.id, worker.worker_id, 1)
    with pytest.raises(DownloadStopped):
        worker.fetcher.fetch(claimed, worker.worker_id, stop=lambda: True)


def test_a_job_in_hand_when_postgres_went_away_is_queued_again_without_another_bell(
    worker: Worker, job: Job, scripted_hub: ScriptedHub, servers: EmbeddedServers
):
    outage = ExitStack()
    end = threading.Timer(2, outage.close)

    def crash(path: str) -> None:
        if path.endswith("adapter_model.safetensors"):
            scripted_hub.disturb = lambda path: None
            outage.enter_context(away(servers.postgres))
            end.start()

    scripted_hub.disturb = crash
    with suppress(DatabaseUnavailable):
        worker.pipeline.ingest(job.id)
    end.join()

    with worker.database.transaction() as session:
        left = jobs.get(session, job.id)
    assert (left.state, left.worker_id) == (JobState.QUEUED, None)
    assert [line["outcome"] for line in left.history] == ["released"]
    assert worker.ingest(job.id).state == JobState.DONE
