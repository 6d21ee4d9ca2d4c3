from __future__ import annotations

import pytest
from sqlalchemy import func, select, text

from catalog.database import Database
from catalog.jobs import control as job_control
from catalog.queue import MAINTENANCE_QUEUE
from catalog.settings import settings
from catalog.tables import Worker
from tests.support.waiting import wait_until
from workers.maintenance.retention import RetentionSweeper


@pytest.fixture
def sweeper(database: Database) -> RetentionSweeper:
    return RetentionSweeper(database, settings().model_copy(update={"worker_retention": 3600.0}))


def put_workers(database: Database, number: int) -> None:
    statement = (
        "INSERT INTO workers (host, pid, device, heartbeat_at) "
        "SELECT 'away', n, 'cpu', now() - interval '2 hours' FROM generate_series(1, :number) AS n"
    )
    with database.transaction() as session:
        session.execute(text(statement), {"number": number})


def count_workers(database: Database) -> int:
    with database.transaction() as session:
        return session.execute(select(func.count()).select_from(Worker)).scalar_one()


def test_step_deletes_some_pages_and_says_whether_there_is_more(database: Database, sweeper: RetentionSweeper):
    put_workers(database, 201)
    assert sweeper.step()
    assert count_workers(database) == 1
    assert not sweeper.step()
    assert count_workers(database) == 0


def test_no_page_is_deleted_once_the_worker_stops(database: Database, sweeper: RetentionSweeper):
    put_workers(database, 1)
    sweeper.request_stop()
    assert sweeper.step()  # there is more, for the next worker
    assert count_workers(database) == 1


def test_nothing_is_deleted_while_maintenance_is_paused(database: Database, sweeper: RetentionSweeper):
    put_workers(database, 1)
    job_control.pause(database, MAINTENANCE_QUEUE)
    assert not sweeper.step()
    assert count_workers(database) == 1


def test_thread_sweeps_when_it_starts(database: Database, sweeper: RetentionSweeper):
    put_workers(database, 1)
    sweeper.start()
    wait_until(lambda: count_workers(database) == 0, "the row of the dead worker is gone")
    sweeper.stop()
