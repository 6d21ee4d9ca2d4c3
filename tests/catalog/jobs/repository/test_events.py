from __future__ import annotations

from sqlalchemy import text

from catalog.database import Database
from catalog.errors import CorruptWeights
from catalog.jobs.repository import attempts, jobs
from catalog.jobs.repository import events as job_events
from catalog.jobs.repository.events import Event, Place
from catalog.models.repository import models
from catalog.tables import JobState, Source
from tests.support import catalog as entries
from tests.support.waiting import wait_until

BEGINNING = Place(0, 0)


def read(database: Database, after: Place = BEGINNING, **options: int) -> list[Event]:
    with database.transaction() as session:
        return job_events.page(session, after, **options)


def settle(database: Database) -> None:
    """Events wait for every transaction that began before them, also for one of the server's own upkeep."""

    def nobody_writes() -> bool:
        with database.transaction() as session:
            running = "SELECT pg_snapshot_xmin(now) = pg_snapshot_xmax(now) FROM pg_current_snapshot() AS now"
            return session.execute(text(running)).scalar_one()

    wait_until(nobody_writes, "no transaction is open")


def test_each_change_of_state_and_progress_is_an_event(database: Database):
    job_id, worker = entries.put_job(database).id, entries.put_worker(database)
    entries.claim(database, job_id, worker)
    for progress in (0.25, 0.25, 0.5):
        with database.transaction() as session:
            attempts.advance(session, [job_id], worker, JobState.FETCHING, progress)
    with database.transaction() as session:
        attempts.fail(session, job_id, worker, CorruptWeights("It is cut off."))

    settle(database)
    told = [(event.state, event.progress, event.attempts, event.error_code) for event in read(database)]

    assert told == [
        ("queued", 0, 0, None),
        ("fetching", 0, 1, None),
        ("fetching", 0.25, 1, None),
        ("fetching", 0.5, 1, None),
        ("failed", 0.5, 1, "corrupt_weights"),
    ]


def test_what_changes_nothing_that_is_shown_is_no_event(database: Database):
    entries.put_job(database)
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET rung_at = now()"))
    settle(database)
    assert len(read(database)) == 1


def test_a_change_that_is_rolled_back_is_no_event(database: Database):
    with database.transaction() as session:
        jobs.submit(session, models.ensure(session, "a/b", Source.HUB), None)
        session.rollback()
    assert read(database) == []


def test_no_event_is_committed_late_behind_one_that_was_read(database: Database):
    early, late = entries.put_model(database, "a/early"), entries.put_model(database, "a/late")
    start = read(database)
    with database.transaction() as slow:
        jobs.submit(slow, early, None)
        with database.transaction() as quick:
            jobs.submit(quick, late, None)
        meanwhile = read(database)
    after = meanwhile[-1].place if meanwhile else BEGINNING
    settle(database)

    assert start == []
    assert {event.repo_id for event in [*meanwhile, *read(database, after)]} == {"a/early", "a/late"}


def test_the_head_is_behind_what_can_be_read_and_before_what_comes(database: Database):
    entries.put_job(database, "a/one")
    settle(database)
    with database.transaction() as session:
        head = job_events.head(session)
    entries.put_job(database, "a/two")
    settle(database)
    assert [event.repo_id for event in read(database, head)] == ["a/two"]


def test_the_events_of_one_job_are_read_alone_and_page_by_page(database: Database):
    ids = [entries.put_job(database, f"a/{number}").id for number in range(3)]
    worker = entries.put_worker(database)
    entries.claim(database, ids[1], worker)
    settle(database)
    first = read(database, job_id=ids[1], limit=1)
    rest = read(database, first[0].place, job_id=ids[1])
    assert [event.state for event in [*first, *rest]] == ["queued", "fetching"]


def test_what_is_too_old_is_forgotten_and_missed(database: Database):
    with database.transaction() as session:
        beginning = job_events.head(session)
    entries.put_job(database, "a/old")
    with database.transaction() as session:
        session.execute(text("UPDATE job_events SET at = now() - interval '1 hour'"))
    entries.put_job(database, "a/new")
    settle(database)
    with database.transaction() as session:
        assert job_events.all_kept(session, beginning)
        assert job_events.forget(session, kept=1800, limit=100) == 1
    with database.transaction() as session:
        assert not job_events.all_kept(session, beginning)
        assert [event.repo_id for event in job_events.page(session, BEGINNING)] == ["a/new"]
