from __future__ import annotations

from catalog.jobs.repository import workers
from workers.health import beats


def register(database, host: str) -> int:
    with database.transaction() as session:
        return workers.register(session, host, 1, "cpu")


def test_a_worker_that_just_registered_beats(database):
    register(database, "here")
    assert beats(database, "here", limit=30)


def test_a_worker_of_another_machine_does_not_count(database):
    register(database, "elsewhere")
    assert not beats(database, "here", limit=30)


def test_a_heartbeat_past_the_limit_does_not_count(database):
    register(database, "here")
    assert not beats(database, "here", limit=0)


def test_a_worker_that_said_goodbye_does_not_count(database):
    worker_id = register(database, "here")
    with database.transaction() as session:
        workers.stop(session, worker_id)
    assert not beats(database, "here", limit=30)
