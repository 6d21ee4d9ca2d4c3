from __future__ import annotations

from sqlalchemy import text

from catalog.database import Database
from catalog.jobs.repository import workers
from tests.support import catalog as entries


def alive(database: Database) -> list[int]:
    with database.transaction() as session:
        return [worker.id for worker in workers.list_alive(session, 30)]


def test_worker_is_alive_from_its_registration(database: Database):
    worker = entries.put_worker(database)
    assert alive(database) == [worker]


def test_worker_without_a_heartbeat_is_dead_until_the_next_one(database: Database):
    worker = entries.put_worker(database)
    with database.transaction() as session:
        session.execute(text("UPDATE workers SET heartbeat_at = now() - interval '31 seconds'"))
    assert alive(database) == []

    with database.transaction() as session:
        workers.record_heartbeat(session, worker)
    assert alive(database) == [worker]


def test_stopped_worker_is_not_alive(database: Database):
    one, other = entries.put_worker(database), entries.put_worker(database)
    with database.transaction() as session:
        workers.mark_stopped(session, one)
    assert alive(database) == [other]
