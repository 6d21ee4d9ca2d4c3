from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from sqlalchemy import text

from app.deployment.embedded import EmbeddedServers
from catalog.database import Database
from catalog.errors import HubUnavailable
from catalog.jobs.recovery import MAX_MESSAGES_PER_SWEEP
from catalog.jobs.repository import attempts, jobs, workers
from catalog.jobs.submissions import submit_repo
from catalog.maintenance.sweep import SweepResult, sweep
from catalog.models.repo_ref import RepoRef
from catalog.models.repository import models
from catalog.queue import ENCODE_QUEUE, MAX_WAITING
from catalog.tables import JobState, ModelState
from tests.support import catalog as entries
from tests.support.outage import server_down


@pytest.fixture
def broker(database: Database, servers: EmbeddedServers) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(servers.redis_url) as broker:
        yield broker


def stop_heartbeat(database: Database, worker_id: int, seconds: float) -> None:
    """Set a worker's last heartbeat to `seconds` ago."""
    statement = "UPDATE workers SET heartbeat_at = now() - make_interval(secs => :seconds) WHERE id = :id"
    with database.transaction() as session:
        session.execute(text(statement), {"seconds": seconds, "id": worker_id})


def test_lost_message_is_sent_again(database: Database, broker: redis.Redis):
    job = submit_repo(database, RepoRef("a/b"))
    broker.flushdb()

    assert sweep(
        database, requeue_after=30, redeliver_after=0, max_worker_deaths=2, event_retention=1000
    ) == SweepResult([], [job.id])
    assert broker.llen(ENCODE_QUEUE) == 1


def test_recent_message_is_not_sent_again(database: Database, broker: redis.Redis):
    submit_repo(database, RepoRef("a/b"))

    assert sweep(
        database, requeue_after=30, redeliver_after=30, max_worker_deaths=2, event_retention=1000
    ) == SweepResult([], [])
    assert broker.llen(ENCODE_QUEUE) == 1


def test_message_is_sent_again_only_once_per_interval(database: Database, broker: redis.Redis):
    job = submit_repo(database, RepoRef("a/b"))
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET enqueued_at = now() - interval '31 seconds'"))

    assert sweep(
        database, requeue_after=30, redeliver_after=30, max_worker_deaths=2, event_retention=1000
    ).enqueued == [job.id]
    assert (
        sweep(database, requeue_after=30, redeliver_after=30, max_worker_deaths=2, event_retention=1000).enqueued == []
    )
    assert broker.llen(ENCODE_QUEUE) == 2


def test_jobs_of_a_worker_without_a_heartbeat_are_requeued(database: Database, broker: redis.Redis):
    job = submit_repo(database, RepoRef("a/b"))
    worker = entries.put_worker(database)
    entries.claim(database, job.id, worker)
    stop_heartbeat(database, worker, 31)
    broker.flushdb()

    assert sweep(
        database, requeue_after=30, redeliver_after=30, max_worker_deaths=2, event_retention=1000
    ) == SweepResult([job.id], [])
    assert broker.llen(ENCODE_QUEUE) == 1
    with database.transaction() as session:
        again = jobs.get(session, job.id)
        assert (again.state, again.worker_id, again.attempts) == (JobState.QUEUED, None, 1)


def test_jobs_of_a_live_worker_are_left_alone(database: Database):
    job = submit_repo(database, RepoRef("a/b"))
    worker = entries.put_worker(database)
    entries.claim(database, job.id, worker)
    stop_heartbeat(database, worker, 299)

    assert sweep(
        database, requeue_after=600, redeliver_after=0, max_worker_deaths=2, event_retention=1000
    ) == SweepResult([], [])


def test_jobs_of_a_stopped_worker_are_requeued_immediately(database: Database):
    job = submit_repo(database, RepoRef("a/b"))
    worker = entries.put_worker(database)
    entries.claim(database, job.id, worker)
    with database.transaction() as session:
        workers.mark_stopped(session, worker)

    assert sweep(
        database, requeue_after=30, redeliver_after=30, max_worker_deaths=2, event_retention=1000
    ).released == [job.id]


def test_finished_jobs_of_a_dead_worker_stay_finished(database: Database):
    job = submit_repo(database, RepoRef("a/b"))
    worker = entries.put_worker(database)
    entries.claim(database, job.id, worker)
    with database.transaction() as session:
        attempts.finish(session, job.id, worker, "sha")
    stop_heartbeat(database, worker, 1000)

    assert sweep(
        database, requeue_after=30, redeliver_after=0, max_worker_deaths=2, event_retention=1000
    ) == SweepResult([], [])


def test_message_for_a_retry_is_sent_once_it_is_due(database: Database):
    job = submit_repo(database, RepoRef("a/b"))
    worker = entries.put_worker(database)
    entries.claim(database, job.id, worker)
    with database.transaction() as session:
        attempts.retry(session, job.id, worker, HubUnavailable("Away."), delay=60)
    assert (
        sweep(database, requeue_after=30, redeliver_after=0, max_worker_deaths=2, event_retention=1000).enqueued == []
    )

    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET available_at = now()"))
    assert sweep(
        database, requeue_after=30, redeliver_after=1000, max_worker_deaths=2, event_retention=1000
    ).enqueued == [job.id]


def test_messages_per_sweep_are_limited(database: Database):
    for number in range(MAX_MESSAGES_PER_SWEEP + 3):
        entries.put_job(database, f"a/m{number}")

    first = sweep(database, requeue_after=30, redeliver_after=0, max_worker_deaths=2, event_retention=1000).enqueued
    with database.transaction() as session:
        statement = "UPDATE jobs SET enqueued_at = now() - interval '1 hour' WHERE id <> ALL(:ids)"
        session.execute(text(statement), {"ids": first})
    rest = sweep(database, requeue_after=30, redeliver_after=1000, max_worker_deaths=2, event_retention=1000).enqueued
    assert (len(first), len(rest)) == (MAX_MESSAGES_PER_SWEEP, 3)
    assert not set(first) & set(rest)


def test_messages_do_not_pile_up_while_no_worker_receives_them(database: Database, broker: redis.Redis):
    for number in range(200):
        entries.put_job(database, f"a/m{number}")
    for _ in range(120):
        with database.transaction() as session:
            session.execute(text("UPDATE jobs SET enqueued_at = enqueued_at - interval '5 seconds'"))
        sweep(database, requeue_after=25, redeliver_after=30, max_worker_deaths=2, event_retention=86_400)
    assert broker.llen(ENCODE_QUEUE) == MAX_WAITING


def test_sweep_requeues_jobs_while_the_broker_is_down(database: Database, servers: EmbeddedServers):
    job = submit_repo(database, RepoRef("a/b"))
    worker = entries.put_worker(database)
    entries.claim(database, job.id, worker)
    stop_heartbeat(database, worker, 31)
    with server_down(servers.valkey):
        assert sweep(
            database, requeue_after=30, redeliver_after=30, max_worker_deaths=2, event_retention=1000
        ).released == [job.id]


def test_job_is_quarantined_after_max_worker_deaths(database: Database):
    job = submit_repo(database, RepoRef("a/b"))
    worker = entries.put_worker(database)
    entries.claim(database, job.id, worker)
    stop_heartbeat(database, worker, 31)

    assert sweep(
        database, requeue_after=30, redeliver_after=30, max_worker_deaths=1, event_retention=1000
    ) == SweepResult([], [])

    with database.transaction() as session:
        ended = jobs.get(session, job.id)
        assert (ended.state, ended.error_code) == (JobState.FAILED, "quarantined")
        assert models.get(session, "a/b").state == ModelState.FAILED
