from __future__ import annotations

from sqlalchemy import text

from catalog.database import Database
from catalog.errors import CorruptWeights
from catalog.jobs.repository import attempts, jobs
from catalog.jobs.repository import events as job_events
from catalog.jobs.repository.events import Event, EventCursor
from catalog.models.repository import models
from catalog.tables import JobState, Source
from tests.support import catalog as entries
from tests.support.waiting import wait_until

BEGINNING = EventCursor(0, 0)


def read(database: Database, after: EventCursor = BEGINNING, **options: int) -> list[Event]:
    with database.transaction() as session:
        return job_events.list_page(session, after, **options)


def wait_for_open_transactions(database: Database) -> None:
    """Events are readable once every earlier transaction has ended, including those of autovacuum."""

    def no_open_transaction() -> bool:
        with database.transaction() as session:
            running = "SELECT pg_snapshot_xmin(now) = pg_snapshot_xmax(now) FROM pg_current_snapshot() AS now"
            return session.execute(text(running)).scalar_one()

    wait_until(no_open_transaction, "no transaction is open")


def test_each_change_of_state_or_progress_is_an_event(database: Database):
    job_id, worker = entries.put_job(database).id, entries.put_worker(database)
    entries.claim(database, job_id, worker)
    for progress in (0.25, 0.25, 0.5):
        with database.transaction() as session:
            attempts.update_progress(session, [job_id], worker, JobState.FETCHING, progress)
    with database.transaction() as session:
        attempts.fail(session, job_id, worker, CorruptWeights("It is cut off."))

    wait_for_open_transactions(database)
    changes = [(event.state, event.progress, event.attempts, event.error_code) for event in read(database)]

    assert changes == [
        ("queued", 0, 0, None),
        ("fetching", 0, 1, None),
        ("fetching", 0.25, 1, None),
        ("fetching", 0.5, 1, None),
        ("failed", 0.5, 1, "corrupt_weights"),
    ]


def test_change_of_other_columns_is_not_an_event(database: Database):
    entries.put_job(database)
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET enqueued_at = now()"))
    wait_for_open_transactions(database)
    assert len(read(database)) == 1


def test_rolled_back_change_is_not_an_event(database: Database):
    with database.transaction() as session:
        jobs.submit(session, models.get_or_create(session, "a/b", Source.HUB), None)
        session.rollback()
    assert read(database) == []


def test_no_event_appears_before_one_that_was_read(database: Database):
    early, late = entries.put_model(database, "a/early"), entries.put_model(database, "a/late")
    start = read(database)
    with database.transaction() as slow:
        jobs.submit(slow, early, None)
        with database.transaction() as quick:
            jobs.submit(quick, late, None)
        early_read = read(database)
    after = early_read[-1].cursor if early_read else BEGINNING
    wait_for_open_transactions(database)

    assert start == []
    assert {event.repo_id for event in [*early_read, *read(database, after)]} == {"a/early", "a/late"}


def test_newest_cursor_is_after_readable_and_before_later_events(database: Database):
    entries.put_job(database, "a/one")
    wait_for_open_transactions(database)
    with database.transaction() as session:
        cursor = job_events.newest_cursor(session)
    entries.put_job(database, "a/two")
    wait_for_open_transactions(database)
    assert [event.repo_id for event in read(database, cursor)] == ["a/two"]


def test_events_of_one_job_are_paged(database: Database):
    ids = [entries.put_job(database, f"a/{number}").id for number in range(3)]
    worker = entries.put_worker(database)
    entries.claim(database, ids[1], worker)
    wait_for_open_transactions(database)
    first = read(database, job_id=ids[1], limit=1)
    rest = read(database, first[0].cursor, job_id=ids[1])
    assert [event.state for event in [*first, *rest]] == ["queued", "fetching"]


def test_expired_events_are_deleted_and_reported_as_missing(database: Database):
    with database.transaction() as session:
        beginning = job_events.newest_cursor(session)
    entries.put_job(database, "a/old")
    with database.transaction() as session:
        session.execute(text("UPDATE job_events SET at = now() - interval '1 hour'"))
    entries.put_job(database, "a/new")
    wait_for_open_transactions(database)
    with database.transaction() as session:
        assert job_events.is_complete_after(session, beginning)
        assert job_events.delete_expired(session, retention=1800, limit=100) == 1
    with database.transaction() as session:
        assert not job_events.is_complete_after(session, beginning)
        assert [event.repo_id for event in job_events.list_page(session, BEGINNING)] == ["a/new"]
