"""Jobs during faults of the Hub, and eviction of their files."""

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
from tests.support.outage import server_down
from tests.support.pipeline import assemble
from tests.support.waiting import LIMIT
from workers.hub.download_cache import evict
from workers.ingest.claimer import BatchPolicy
from workers.ingest.fetcher import Fetcher
from workers.ingest.pipeline import Pipeline
from workers.process.retries import MAX_RETRY_DELAY, RetryPolicy

ATTEMPTS = 2


@dataclass
class Worker:
    database: Database
    fetcher: Fetcher
    pipeline: Pipeline
    worker_id: int

    def ingest(self, job_id: int) -> Job:
        """The job after one attempt."""
        with self.database.transaction() as session:
            session.execute(
                update(Job).values(available_at=func.now())
            )  # without the retry delay of an earlier attempt
        self.pipeline.ingest(job_id)
        with self.database.transaction() as session:
            return jobs.get(session, job_id)


@pytest.fixture
def make_worker(
    database: Database, pico_base: Path, tmp_path: Path, scripted_hub: ScriptedHub
) -> Callable[[float], Worker]:
    """Makes workers with a timeout in seconds for each response."""

    def make(timeout: float) -> Worker:
        policy = {"batching": BatchPolicy(), "retries": RetryPolicy(ATTEMPTS, base=100)}
        parts = assemble(database, pico_base, tmp_path, endpoint=scripted_hub.url, timeout=timeout, **policy)
        return Worker(database, parts.fetcher, parts.pipeline, parts.worker_id)

    return make


@pytest.fixture
def worker(make_worker: Callable[[float], Worker]) -> Worker:
    return make_worker(LIMIT)


@pytest.fixture
def job(database: Database, scripted_hub: ScriptedHub, tmp_path: Path) -> Job:
    folder = pico.make_adapter(tmp_path / "good")
    scripted_hub.publish("o/n", {path.name: path.read_bytes() for path in folder.iterdir()})
    return submit_repo(database, RepoRef("o/n"))


@pytest.mark.parametrize(
    "fault", [Answer(500), Answer(503), Answer(hangs=True), Answer(429), Answer(cut_after=100, content_length=10**6)]
)
def test_job_survives_a_fault_of_the_hub(
    make_worker: Callable[[float], Worker], job: Job, scripted_hub: ScriptedHub, fault: Answer
):
    worker = make_worker(3 if fault.hangs else LIMIT)
    scripted_hub.answer_first("/o/n/resolve/", fault)
    first = worker.ingest(job.id)
    ended = first if first.state == JobState.DONE else worker.ingest(job.id)
    assert ended.state == JobState.DONE


def test_job_fails_after_its_last_attempt_at_an_unavailable_hub(worker: Worker, job: Job, scripted_hub: ScriptedHub):
    scripted_hub.intercept = lambda path: Answer(500)
    states = [worker.ingest(job.id).state for _ in range(ATTEMPTS)]
    assert states == [JobState.QUEUED, JobState.FAILED]


def test_rate_limited_job_never_fails(worker: Worker, job: Job, scripted_hub: ScriptedHub):
    scripted_hub.intercept = lambda path: Answer(429)
    states = [worker.ingest(job.id).state for _ in range(ATTEMPTS + 1)]
    assert states == [JobState.QUEUED] * (ATTEMPTS + 1)
    scripted_hub.intercept = lambda path: None
    assert worker.ingest(job.id).state == JobState.DONE


def test_released_and_rate_limited_attempts_do_not_count(worker: Worker, job: Job, scripted_hub: ScriptedHub):
    for _ in range(ATTEMPTS):  # released by a worker that stopped
        with worker.database.transaction() as session:
            claims.claim(session, job.id, worker.worker_id, 1)
            attempts.release(session, [worker.worker_id])
    scripted_hub.intercept = lambda path: Answer(429)
    assert worker.ingest(job.id).state == JobState.QUEUED

    scripted_hub.intercept = lambda path: Answer(500)
    states = [worker.ingest(job.id).state for _ in range(ATTEMPTS)]

    assert states == [JobState.QUEUED, JobState.FAILED]


def test_manually_retried_job_has_all_its_attempts_again(worker: Worker, job: Job, scripted_hub: ScriptedHub):
    scripted_hub.intercept = lambda path: Answer(500)
    for _ in range(ATTEMPTS):
        worker.ingest(job.id)
    with worker.database.transaction() as session:
        assert jobs.requeue(session, job.id, None)

    states = [worker.ingest(job.id).state for _ in range(ATTEMPTS)]

    assert states == [JobState.QUEUED, JobState.FAILED]


def test_retry_waits_as_long_as_the_hub_asks_plus_jitter():
    policy = RetryPolicy(5, base=2)
    delays = [policy.delay(1, HubRateLimited("slow down", 60)) for _ in range(50)]
    assert min(delays) >= 60
    assert max(delays) <= 62
    assert len(set(delays)) > 1


def test_retry_delay_is_bounded():
    assert RetryPolicy(5, base=2).delay(1000, HubUnavailable("away")) <= 1.5 * MAX_RETRY_DELAY


def test_files_of_a_running_job_are_not_evicted(worker: Worker, job: Job, tmp_path: Path):
    with worker.database.transaction() as session:
        (claimed,) = claims.claim(session, job.id, worker.worker_id, 1)
    fetched = worker.fetcher.fetch(claimed, worker.worker_id)
    assert evict(tmp_path / "downloads", 10**9) == 0
    fetched.locks.release()
    assert evict(tmp_path / "downloads", 10**9) > 0


def test_files_of_a_finished_job_may_be_evicted(worker: Worker, job: Job, tmp_path: Path):
    assert worker.ingest(job.id).state == JobState.DONE
    assert evict(tmp_path / "downloads", 10**9) > 0


def test_failed_fetch_releases_its_locks(worker: Worker, job: Job, scripted_hub: ScriptedHub, tmp_path: Path):
    scripted_hub.answer_first("/o/n/resolve/" + scripted_hub.sha + "/adapter_model.safetensors", Answer(500))
    assert worker.ingest(job.id).state == JobState.QUEUED
    assert evict(tmp_path / "downloads", 10**9) > 0


def test_fetch_can_be_stopped(worker: Worker, job: Job):
    with worker.database.transaction() as session:
        (claimed,) = claims.claim(session, job.id, worker.worker_id, 1)
    with pytest.raises(DownloadStopped):
        worker.fetcher.fetch(claimed, worker.worker_id, stop=lambda: True)


def test_claimed_job_is_requeued_after_an_outage_of_postgres(
    worker: Worker, job: Job, scripted_hub: ScriptedHub, servers: EmbeddedServers
):
    outage = ExitStack()
    end = threading.Timer(2, outage.close)

    def crash(path: str) -> None:
        if path.endswith("adapter_model.safetensors"):
            scripted_hub.intercept = lambda path: None
            outage.enter_context(server_down(servers.postgres))
            end.start()

    scripted_hub.intercept = crash
    with suppress(DatabaseUnavailable):
        worker.pipeline.ingest(job.id)
    end.join()

    with worker.database.transaction() as session:
        left = jobs.get(session, job.id)
    assert (left.state, left.worker_id) == (JobState.QUEUED, None)
    assert [line["outcome"] for line in left.history] == ["released"]
    assert worker.ingest(job.id).state == JobState.DONE
