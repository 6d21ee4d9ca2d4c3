from __future__ import annotations

from collections.abc import Sequence

import pytest
from sqlalchemy import text

from catalog.database import Database
from catalog.jobs.repository import claims, jobs, queues, workers
from catalog.jobs.repository.claims import OLDEST_EVERY
from catalog.models.repository import models
from catalog.queue import ENCODE_QUEUE
from catalog.tables import JobState, Priority, Source
from tests.support import catalog as entries


@pytest.fixture
def worker(database: Database) -> int:
    return entries.put_worker(database)


def put(database: Database, name: str, priority: Priority, hint: str | None = None, age: float = 0) -> int:
    """The id of a job that has waited for `age` seconds."""
    with database.transaction() as session:
        model = models.get_or_create(session, f"owner/{name}", Source.HUB)
        job, _ = jobs.submit(session, model, None, hint, priority=priority)
        statement = "UPDATE jobs SET available_at = now() - make_interval(secs => :age) WHERE id = :id"
        session.execute(text(statement), {"age": age, "id": job.id})
        return job.id


def next_due(database: Database, *, turn: int = 1, resident: Sequence[str] = (), max_wait: float = 100) -> int | None:
    """The id of the next job, with the claim counter at `turn`."""
    with database.transaction() as session:
        session.execute(text("SELECT setval('claim_turn', :turn, false)"), {"turn": turn})
        due = claims.find_next_due(session, resident, max_wait)
        return due.job_id if due else None


def mark_suspect(database: Database, job_id: int) -> None:
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET worker_deaths = 1 WHERE id = :id"), {"id": job_id})


def test_users_go_before_webhooks_and_webhooks_before_crawls(database: Database, worker: int):
    crawl = put(database, "crawl", Priority.CRAWL, "base/one", age=3000)
    webhook = put(database, "webhook", Priority.WEBHOOK, "base/two", age=2000)
    user = put(database, "user", Priority.USER, "base/three")

    order = []
    for _ in range(3):
        order.append(next_due(database))
        entries.claim(database, order[-1], worker)

    assert order == [user, webhook, crawl]


def test_every_fourth_claim_takes_the_oldest_job(database: Database):
    oldest = put(database, "crawl", Priority.CRAWL, age=3000)
    user = put(database, "user", Priority.USER)

    order = [next_due(database, turn=turn) for turn in range(1, 2 * OLDEST_EVERY + 1)]

    assert order == ([user] * (OLDEST_EVERY - 1) + [oldest]) * 2


def test_claim_of_the_oldest_keeps_the_resident_base_within_max_wait(database: Database):
    put(database, "one", Priority.CRAWL, "base/one", age=20)
    resident = put(database, "two", Priority.CRAWL, "base/two", age=10)

    assert next_due(database, turn=OLDEST_EVERY, resident=["base/two"], max_wait=100) == resident


def test_crawl_job_does_not_starve_behind_user_jobs(database: Database, worker: int):
    crawl = put(database, "crawl", Priority.CRAWL, "base/crawl", age=1000)
    with database.transaction() as session:
        session.execute(text("SELECT setval('claim_turn', 1, false)"))
    for number in range(OLDEST_EVERY):
        put(database, f"user-{number}", Priority.USER, f"base/{number}")
        with database.transaction() as session:
            due = claims.find_next_due(session, (), 100)
            claims.claim(session, due.job_id, worker, 1)

    with database.transaction() as session:
        assert jobs.get(session, crawl).state == JobState.FETCHING


def test_resident_base_goes_first_within_a_priority(database: Database):
    put(database, "one", Priority.CRAWL, "base/one", age=20)
    resident = put(database, "two", Priority.CRAWL, "base/two", age=10)

    assert next_due(database, resident=["base/two"]) == resident


def test_resident_base_does_not_outrank_priority(database: Database):
    put(database, "crawl", Priority.CRAWL, "base/two", age=10)
    user = put(database, "user", Priority.USER, "base/one")

    assert next_due(database, resident=["base/two"]) == user


def test_overdue_job_goes_before_a_resident_base(database: Database):
    overdue = put(database, "one", Priority.CRAWL, "base/one", age=101)
    put(database, "two", Priority.CRAWL, "base/two", age=10)

    assert next_due(database, resident=["base/two"], max_wait=100) == overdue


def test_claim_includes_jobs_of_the_same_base_by_priority(database: Database, worker: int):
    crawls = [put(database, f"crawl-{number}", Priority.CRAWL, "base/one", age=100) for number in range(3)]
    webhook = put(database, "webhook", Priority.WEBHOOK, "base/one")
    user = put(database, "user", Priority.USER, "base/one")

    assert entries.claim(database, user, worker, batch=3) == [crawls[0], webhook, user]


def test_resubmission_raises_the_priority_and_never_lowers_it(database: Database):
    job_id = put(database, "model", Priority.CRAWL)
    for priority, expected in ((Priority.WEBHOOK, 1), (Priority.USER, 0), (Priority.CRAWL, 0)):
        assert put(database, "model", priority) == job_id
        with database.transaction() as session:
            assert jobs.get(session, job_id).priority == expected


def test_no_job_is_due_while_the_queue_is_paused(database: Database):
    job_id = put(database, "model", Priority.USER)
    with database.transaction() as session:
        queues.pause(session, ENCODE_QUEUE)
    assert next_due(database) is None
    with database.transaction() as session:
        assert claims.find_oldest_due(session) is None
        queues.resume(session, ENCODE_QUEUE)
    assert next_due(database) == job_id


def test_pause_waits_for_a_claim_in_progress(database: Database, worker: int):
    job_id = put(database, "model", Priority.USER)
    with database.transaction() as claiming, database.transaction() as pausing:
        assert [job.id for job in claims.claim(claiming, job_id, worker, 1)] == [job_id]
        pausing.execute(text("SET LOCAL lock_timeout = '200ms'"))
        with pytest.raises(Exception, match="lock timeout"):
            queues.pause(pausing, ENCODE_QUEUE)
        pausing.rollback()


def test_job_found_before_a_pause_is_not_claimed_after_it(database: Database, worker: int):
    job_id = put(database, "model", Priority.USER)
    assert next_due(database) == job_id
    with database.transaction() as session:
        queues.pause(session, ENCODE_QUEUE)
    assert entries.claim(database, job_id, worker) == []


def test_suspect_is_claimed_by_itself(database: Database, worker: int):
    suspect, _ = (put(database, name, Priority.USER, "base/one") for name in ("suspect", "other"))
    mark_suspect(database, suspect)

    assert entries.claim(database, suspect, worker, batch=8) == [suspect]


def test_suspect_is_never_claimed_along_with_others(database: Database, worker: int):
    suspect = put(database, "suspect", Priority.USER, "base/one", age=100)
    mark_suspect(database, suspect)
    other, another = (put(database, name, Priority.USER, "base/one") for name in ("other", "another"))

    assert entries.claim(database, other, worker, batch=8) == [other, another]


def test_suspect_is_due_as_an_exclusive_job(database: Database):
    mark_suspect(database, put(database, "suspect", Priority.USER))
    with database.transaction() as session:
        due = claims.find_next_due(session, (), 100)
    assert due.exclusive


def test_has_due_considers_base_and_priority(database: Database):
    put(database, "crawl", Priority.CRAWL, "base/one")
    with database.transaction() as session:
        assert claims.has_due(session, ["base/one"], Priority.CRAWL)
        assert not claims.has_due(session, ["base/one"], Priority.USER)
        assert not claims.has_due(session, ["base/two"], Priority.CRAWL)


def test_worker_whose_own_heartbeat_is_late_claims_nothing(database: Database, worker: int):
    job_id = put(database, "model", Priority.USER)
    with database.transaction() as session:
        session.execute(text("UPDATE workers SET heartbeat_at = now() - interval '26 seconds'"))
        assert claims.claim(session, job_id, worker, 1, max_silence=25) == []
        workers.record_heartbeat(session, worker)
        assert [job.id for job in claims.claim(session, job_id, worker, 1, max_silence=25)] == [job_id]
