from __future__ import annotations

from catalog.jobs.repository import workers
from workers.health import is_alive


def register(database, host: str) -> int:
    with database.transaction() as session:
        return workers.register(session, host, 1, "cpu")


def test_registered_worker_is_alive(database):
    register(database, "here")
    assert is_alive(database, "here", timeout=30)


def test_worker_of_another_host_does_not_count(database):
    register(database, "elsewhere")
    assert not is_alive(database, "here", timeout=30)


def test_expired_heartbeat_does_not_count(database):
    register(database, "here")
    assert not is_alive(database, "here", timeout=0)


def test_stopped_worker_does_not_count(database):
    worker_id = register(database, "here")
    with database.transaction() as session:
        workers.mark_stopped(session, worker_id)
    assert not is_alive(database, "here", timeout=30)
