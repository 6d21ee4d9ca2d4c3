from __future__ import annotations

from collections.abc import Sequence

import pytest
from sqlalchemy import text

from catalog.database import Database
from catalog.jobs.repository import claims, jobs, queues
from catalog.jobs.repository.claims import OLDEST_EVERY
from catalog.models.repository import models
from catalog.queue import ENCODE_QUEUE
from catalog.tables import JobState, Priority, Source
from tests.support import catalog as entries


@pytest.fixture
def worker(database: Database) -> int:
    return entries.put_worker(database)


def put(database: Database, name: str, priority: Priority, hint: str | None = None, age: float = 0) -> int:
    """A job that has waited for `age` seconds."""
    with database.transaction() as session:
        model = models.ensure(session, f"owner/{name}", Source.HUB)
        job, _ = jobs.submit(session, model, None, hint, priority=priority)
        statement = "UPDATE jobs SET available_at = now() - make_interval(secs => :age) WHERE id = :id"
        session.execute(text(statement), {"age": age, "id": job.id})
        return job.id


def next_due(database: Database, *, turn: int = 1, resident: Sequence[str] = (), patience: float = 100) -> int | None:
    """The next job, on the claim of that number."""
    with database.transaction() as session:
        session.execute(text("SELECT setval('claim_turn', :turn, false)"), {"turn": turn})
        due = claims.next_due(session, resident, patience)
        return due.job_id if due else None


def mark_suspect(database: Database, job_id: int) -> None:
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET deaths = 1 WHERE id = :id"), {"id": job_id})


def test_a_person_goes_before_a_webhook_before_a_crawl_however_long_they_wait(database: Database, worker: int):
    crawl = put(database, "crawl", Priority.CRAWL, "base/one", age=3000)
    webhook = put(database, "webhook", Priority.WEBHOOK, "base/two", age=2000)
    person = put(database, "person", Priority.PERSON, "base/three")

    found = []
    for _ in range(3):
        found.append(next_due(database))
        entries.claim(database, found[-1], worker)

    assert found == [person, webhook, crawl]


def test_every_so_many_claims_the_job_that_waits_longest_has_its_turn(database: Database):
    oldest = put(database, "crawl", Priority.CRAWL, age=3000)
    person = put(database, "person", Priority.PERSON)

    found = [next_due(database, turn=turn) for turn in range(1, 2 * OLDEST_EVERY + 1)]

    assert found == ([person] * (OLDEST_EVERY - 1) + [oldest]) * 2


def test_a_turn_of_the_oldest_does_not_change_the_base_before_its_patience_is_over(database: Database):
    put(database, "one", Priority.CRAWL, "base/one", age=20)
    resident = put(database, "two", Priority.CRAWL, "base/two", age=10)

    assert next_due(database, turn=OLDEST_EVERY, resident=["base/two"], patience=100) == resident


def test_no_job_waits_for_ever_while_people_go_on_submitting(database: Database, worker: int):
    crawl = put(database, "crawl", Priority.CRAWL, "base/crawl", age=1000)
    with database.transaction() as session:
        session.execute(text("SELECT setval('claim_turn', 1, false)"))
    for number in range(OLDEST_EVERY):
        put(database, f"person-{number}", Priority.PERSON, f"base/{number}")
        with database.transaction() as session:
            due = claims.next_due(session, (), 100)
            claims.claim(session, due.job_id, worker, 1)

    with database.transaction() as session:
        assert jobs.get(session, crawl).state == JobState.FETCHING


def test_within_a_priority_a_base_in_memory_goes_first(database: Database):
    put(database, "one", Priority.CRAWL, "base/one", age=20)
    resident = put(database, "two", Priority.CRAWL, "base/two", age=10)

    assert next_due(database, resident=["base/two"]) == resident


def test_a_base_in_memory_does_not_carry_a_crawl_past_a_person(database: Database):
    put(database, "crawl", Priority.CRAWL, "base/two", age=10)
    person = put(database, "person", Priority.PERSON, "base/one")

    assert next_due(database, resident=["base/two"]) == person


def test_a_job_that_waited_too_long_goes_before_a_base_in_memory(database: Database):
    overdue = put(database, "one", Priority.CRAWL, "base/one", age=101)
    put(database, "two", Priority.CRAWL, "base/two", age=10)

    assert next_due(database, resident=["base/two"], patience=100) == overdue


def test_jobs_of_the_same_base_come_along_the_most_urgent_first(database: Database, worker: int):
    crawls = [put(database, f"crawl-{number}", Priority.CRAWL, "base/one", age=100) for number in range(3)]
    webhook = put(database, "webhook", Priority.WEBHOOK, "base/one")
    person = put(database, "person", Priority.PERSON, "base/one")

    assert entries.claim(database, person, worker, batch=3) == [crawls[0], webhook, person]


def test_asking_again_makes_a_waiting_job_more_urgent_and_never_less(database: Database):
    job_id = put(database, "model", Priority.CRAWL)
    for asked, expected in ((Priority.WEBHOOK, 1), (Priority.PERSON, 0), (Priority.CRAWL, 0)):
        assert put(database, "model", asked) == job_id
        with database.transaction() as session:
            assert jobs.get(session, job_id).priority == expected


def test_nothing_is_due_while_the_queue_is_paused(database: Database):
    job_id = put(database, "model", Priority.PERSON)
    with database.transaction() as session:
        queues.pause(session, ENCODE_QUEUE)
    assert next_due(database) is None
    with database.transaction() as session:
        assert claims.oldest_due(session) is None
        queues.resume(session, ENCODE_QUEUE)
    assert next_due(database) == job_id


def test_a_pause_waits_for_a_claim_that_is_on_its_way(database: Database, worker: int):
    job_id = put(database, "model", Priority.PERSON)
    with database.transaction() as claiming, database.transaction() as pausing:
        assert [job.id for job in claims.claim(claiming, job_id, worker, 1)] == [job_id]
        pausing.execute(text("SET LOCAL lock_timeout = '200ms'"))
        with pytest.raises(Exception, match="lock timeout"):
            queues.pause(pausing, ENCODE_QUEUE)
        pausing.rollback()


def test_a_job_that_was_next_before_a_pause_is_not_claimed_after_it(database: Database, worker: int):
    job_id = put(database, "model", Priority.PERSON)
    assert next_due(database) == job_id
    with database.transaction() as session:
        queues.pause(session, ENCODE_QUEUE)
    assert entries.claim(database, job_id, worker) == []


def test_a_suspect_is_claimed_alone(database: Database, worker: int):
    suspect, _ = (put(database, name, Priority.PERSON, "base/one") for name in ("suspect", "other"))
    mark_suspect(database, suspect)

    assert entries.claim(database, suspect, worker, batch=8) == [suspect]


def test_a_suspect_never_comes_along(database: Database, worker: int):
    suspect = put(database, "suspect", Priority.PERSON, "base/one", age=100)
    mark_suspect(database, suspect)
    other, another = (put(database, name, Priority.PERSON, "base/one") for name in ("other", "another"))

    assert entries.claim(database, other, worker, batch=8) == [other, another]


def test_a_suspect_is_said_to_want_a_worker_for_itself(database: Database):
    mark_suspect(database, put(database, "suspect", Priority.PERSON))
    with database.transaction() as session:
        due = claims.next_due(session, (), 100)
    assert due.alone


def test_work_as_urgent_for_a_base_in_memory_is_seen(database: Database):
    put(database, "crawl", Priority.CRAWL, "base/one")
    with database.transaction() as session:
        assert claims.any_due(session, ["base/one"], Priority.CRAWL)
        assert not claims.any_due(session, ["base/one"], Priority.PERSON)
        assert not claims.any_due(session, ["base/two"], Priority.CRAWL)
