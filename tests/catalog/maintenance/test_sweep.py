from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from sqlalchemy import text

from app.deployment.embedded import EmbeddedServers
from catalog.database import Database
from catalog.errors import HubUnavailable
from catalog.jobs.recovery import RINGS_A_SWEEP
from catalog.jobs.repository import attempts, jobs, workers
from catalog.jobs.submissions import submit_repo
from catalog.maintenance.sweep import Sweep, sweep
from catalog.models.repo_ref import RepoRef
from catalog.models.repository import models
from catalog.queue import ENCODE_QUEUE
from catalog.tables import JobState, ModelState
from tests.support import catalog as entries
from tests.support.outage import away


@pytest.fixture
def broker(database: Database, servers: EmbeddedServers) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(servers.redis_url) as broker:
        yield broker


def silence(database: Database, worker_id: int, seconds: float) -> None:
    """Make a worker's last heartbeat so old."""
    statement = "UPDATE workers SET heartbeat_at = now() - make_interval(secs => :seconds) WHERE id = :id"
    with database.transaction() as session:
        session.execute(text(statement), {"seconds": seconds, "id": worker_id})


def test_a_lost_message_is_rung_again(database: Database, broker: redis.Redis):
    job = submit_repo(database, RepoRef("a/b"))
    broker.flushdb()

    assert sweep(database, silence=30, ring_again_after=0, deadly=2, events_kept=1000) == Sweep([], [job.id])
    assert broker.llen(ENCODE_QUEUE) == 1


def test_a_message_is_not_lost_before_its_time(database: Database, broker: redis.Redis):
    submit_repo(database, RepoRef("a/b"))

    assert sweep(database, silence=30, ring_again_after=30, deadly=2, events_kept=1000) == Sweep([], [])
    assert broker.llen(ENCODE_QUEUE) == 1


def test_a_bell_is_not_rung_twice_within_the_time(database: Database, broker: redis.Redis):
    job = submit_repo(database, RepoRef("a/b"))
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET rung_at = now() - interval '31 seconds'"))

    assert sweep(database, silence=30, ring_again_after=30, deadly=2, events_kept=1000).rung == [job.id]
    assert sweep(database, silence=30, ring_again_after=30, deadly=2, events_kept=1000).rung == []
    assert broker.llen(ENCODE_QUEUE) == 2


def test_jobs_of_a_silent_worker_are_queued_and_rung(database: Database, broker: redis.Redis):
    job = submit_repo(database, RepoRef("a/b"))
    worker = entries.put_worker(database)
    entries.claim(database, job.id, worker)
    silence(database, worker, 31)
    broker.flushdb()

    assert sweep(database, silence=30, ring_again_after=30, deadly=2, events_kept=1000) == Sweep([job.id], [])
    assert broker.llen(ENCODE_QUEUE) == 1
    with database.transaction() as session:
        again = jobs.get(session, job.id)
        assert (again.state, again.worker_id, again.attempts) == (JobState.QUEUED, None, 1)


def test_jobs_of_a_living_worker_stay_where_they_are(database: Database):
    job = submit_repo(database, RepoRef("a/b"))
    worker = entries.put_worker(database)
    entries.claim(database, job.id, worker)
    silence(database, worker, 299)

    assert sweep(database, silence=600, ring_again_after=0, deadly=2, events_kept=1000) == Sweep([], [])


def test_jobs_of_a_stopped_worker_are_queued_at_once(database: Database):
    job = submit_repo(database, RepoRef("a/b"))
    worker = entries.put_worker(database)
    entries.claim(database, job.id, worker)
    with database.transaction() as session:
        workers.stop(session, worker)

    assert sweep(database, silence=30, ring_again_after=30, deadly=2, events_kept=1000).released == [job.id]


def test_a_dead_workers_ended_jobs_stay_ended(database: Database):
    job = submit_repo(database, RepoRef("a/b"))
    worker = entries.put_worker(database)
    entries.claim(database, job.id, worker)
    with database.transaction() as session:
        attempts.finish(session, job.id, worker, "sha")
    silence(database, worker, 1000)

    assert sweep(database, silence=30, ring_again_after=0, deadly=2, events_kept=1000) == Sweep([], [])


def test_a_job_that_waits_for_its_retry_is_rung_when_the_time_has_come(database: Database):
    job = submit_repo(database, RepoRef("a/b"))
    worker = entries.put_worker(database)
    entries.claim(database, job.id, worker)
    with database.transaction() as session:
        attempts.retry(session, job.id, worker, HubUnavailable("Away."), delay=60)
    assert sweep(database, silence=30, ring_again_after=0, deadly=2, events_kept=1000).rung == []

    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET available_at = now()"))
    assert sweep(database, silence=30, ring_again_after=1000, deadly=2, events_kept=1000).rung == [job.id]


def test_one_sweep_rings_for_so_many_jobs_and_the_next_for_the_rest(database: Database):
    for number in range(RINGS_A_SWEEP + 3):
        entries.put_job(database, f"a/m{number}")

    first = sweep(database, silence=30, ring_again_after=0, deadly=2, events_kept=1000).rung
    with database.transaction() as session:
        statement = "UPDATE jobs SET rung_at = now() - interval '1 hour' WHERE id <> ALL(:ids)"
        session.execute(text(statement), {"ids": first})
    rest = sweep(database, silence=30, ring_again_after=1000, deadly=2, events_kept=1000).rung
    assert (len(first), len(rest)) == (RINGS_A_SWEEP, 3)
    assert not set(first) & set(rest)


def test_a_sweep_with_the_broker_down_still_releases(database: Database, servers: EmbeddedServers):
    job = submit_repo(database, RepoRef("a/b"))
    worker = entries.put_worker(database)
    entries.claim(database, job.id, worker)
    silence(database, worker, 31)
    with away(servers.valkey):
        assert sweep(database, silence=30, ring_again_after=30, deadly=2, events_kept=1000).released == [job.id]


def test_a_job_that_was_with_a_dead_worker_too_often_is_failed(database: Database):
    job = submit_repo(database, RepoRef("a/b"))
    worker = entries.put_worker(database)
    entries.claim(database, job.id, worker)
    silence(database, worker, 31)

    assert sweep(database, silence=30, ring_again_after=30, deadly=1, events_kept=1000) == Sweep([], [])

    with database.transaction() as session:
        ended = jobs.get(session, job.id)
        assert (ended.state, ended.error_code) == (JobState.FAILED, "quarantined")
        assert models.get(session, "a/b").state == ModelState.FAILED
