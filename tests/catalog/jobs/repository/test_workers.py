from __future__ import annotations

from sqlalchemy import text

from catalog.database import Database
from catalog.jobs.repository import workers
from tests.support import catalog as entries


def alive(database: Database) -> list[int]:
    with database.transaction() as session:
        return [worker.id for worker in workers.alive(session, 30)]


def test_a_worker_lives_from_its_registration_on(database: Database):
    worker = entries.put_worker(database)
    assert alive(database) == [worker]


def test_a_worker_without_a_heartbeat_is_dead_until_the_next_one(database: Database):
    worker = entries.put_worker(database)
    with database.transaction() as session:
        session.execute(text("UPDATE workers SET heartbeat_at = now() - interval '31 seconds'"))
    assert alive(database) == []

    with database.transaction() as session:
        workers.beat(session, worker)
    assert alive(database) == [worker]


def test_a_worker_that_stopped_is_dead_at_once(database: Database):
    one, other = entries.put_worker(database), entries.put_worker(database)
    with database.transaction() as session:
        workers.stop(session, one)
    assert alive(database) == [other]
