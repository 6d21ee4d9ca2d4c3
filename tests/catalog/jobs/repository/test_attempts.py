from __future__ import annotations

import json

import pytest
from sqlalchemy import text

from catalog.auth.viewer import ADMIN
from catalog.database import Database
from catalog.errors import HubRateLimited
from catalog.jobs.repository import attempts, jobs
from catalog.jobs.repository.attempts import FIRST_KEPT, LAST_KEPT
from tests.support import catalog as entries

KEPT = FIRST_KEPT + LAST_KEPT


@pytest.fixture
def worker(database: Database) -> int:
    return entries.put_worker(database)


def fail_often(database: Database, job_id: int, worker_id: int, times: int) -> list[dict]:
    """Let a job meet a rate limit many times, and return its history."""
    for _ in range(times):
        assert entries.claim(database, job_id, worker_id) == [job_id]
        with database.transaction() as session:
            assert attempts.retry(session, job_id, worker_id, HubRateLimited("Wait."), delay=0)
    with database.transaction() as session:
        return jobs.get(session, job_id, ADMIN).history


def test_history_has_every_attempt_while_there_are_few(database: Database, worker: int):
    history = fail_often(database, entries.put_job(database).id, worker, KEPT)
    assert [entry["attempt"] for entry in history] == list(range(1, KEPT + 1))
    assert not any("left_out" in entry for entry in history)


def test_history_keeps_the_first_and_the_last_of_many_attempts(database: Database, worker: int):
    history = fail_often(database, entries.put_job(database).id, worker, KEPT + 7)
    assert [entry["attempt"] for entry in history] == [*range(1, FIRST_KEPT + 1), *range(FIRST_KEPT + 8, KEPT + 8)]
    assert {number: entry["left_out"] for number, entry in enumerate(history) if "left_out" in entry} == {FIRST_KEPT: 7}


def test_history_that_was_long_already_is_shortened(database: Database, worker: int):
    job = entries.put_job(database)
    with database.transaction() as session:
        long = json.dumps([{"attempt": number} for number in range(500)])
        session.execute(text("UPDATE jobs SET history = cast(:long AS jsonb)"), {"long": long})
    history = fail_often(database, job.id, worker, 1)
    assert len(history) == KEPT
    assert history[FIRST_KEPT]["left_out"] == 501 - KEPT
    assert history[FIRST_KEPT]["attempt"] == 500 - LAST_KEPT + 1
