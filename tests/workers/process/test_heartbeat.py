from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from sqlalchemy import text

from catalog.database import Database
from catalog.jobs.processes import identity
from catalog.jobs.recovery import recover
from catalog.jobs.repository import jobs, workers
from catalog.settings import settings
from catalog.tables import JobState, Worker
from tests.support import catalog as entries
from tests.support.outage import without_its_table
from tests.support.waiting import wait_until
from workers.bootstrap import Runtime
from workers.process.heartbeat import Heartbeat

LIMIT = 30  # seconds


def test_a_beat_carries_what_the_worker_says_of_itself(database: Database):
    beaten = threading.Event()
    beats: list[int] = []

    def after() -> None:
        beats.append(1)
        if len(beats) == 2:  # the first registers
            beaten.set()

    heartbeat = Heartbeat(database, "cpu", 0.01, report=lambda: {"activity": "resting"}, after=after)
    heartbeat.start()
    assert beaten.wait(LIMIT)
    with database.transaction() as session:
        [worker] = workers.alive(session, LIMIT)
    heartbeat.stop()
    assert worker.status == {"activity": "resting"}


def test_a_heartbeat_outlives_every_error_of_postgres(database: Database, caplog: pytest.LogCaptureFixture):
    heartbeat = Heartbeat(database, "cpu", 0.01)
    heartbeat.start()
    worker_id = heartbeat.worker_id()
    with without_its_table(database, "workers"):  # a failover gives errors that are not about the connection, too
        wait_until(lambda: "the heartbeat goes on" in caplog.text, "a beat has failed")
    with database.transaction() as session:
        session.execute(text("UPDATE workers SET heartbeat_at = 'epoch'"))
    wait_until(lambda: worker_id in alive(database), "it beats again")
    heartbeat.stop()
    assert alive(database) == []


def test_a_report_that_fails_ends_no_heartbeat(database: Database):
    reports = iter([RuntimeError("a driver is away"), {"activity": "resting"}])

    def report() -> dict[str, object]:
        told = next(reports, {"activity": "resting"})
        if isinstance(told, Exception):
            raise told
        return told

    heartbeat = Heartbeat(database, "cpu", 0.01, report=report)
    heartbeat.start()
    wait_until(lambda: [row.status for row in rows_alive(database)] == [{"activity": "resting"}], "it reports again")
    heartbeat.stop()


def test_a_worker_of_this_machine_that_was_killed_is_shown_no_more_and_its_jobs_count_a_death(
    database: Database,
):
    job_id = entries.put_job(database).id
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        with database.transaction() as session:
            killed = workers.register(session, "here", process.pid, "cpu", identity(process.pid))
        entries.claim(database, job_id, killed)
        assert alive(database) == [killed]
        assert recover(database, silence=LIMIT, deadly=2).released == []
        process.kill()
    assert alive(database) == []

    assert recover(database, silence=LIMIT, deadly=2).released == [job_id]

    with database.transaction() as session:
        again = jobs.get(session, job_id)
        assert (again.state, again.deaths) == (JobState.QUEUED, 1)
        assert session.get_one(Worker, killed).stopped_at is not None


def test_a_worker_of_another_machine_is_known_by_its_heartbeat_alone(database: Database):
    with database.transaction() as session:
        elsewhere = workers.register(session, "there", 1, "cpu", "another-boot/pid:[1]/1/1")
    assert alive(database) == [elsewhere]
    assert recover(database, silence=LIMIT, deadly=2).released == []
    assert alive(database) == [elsewhere]


def rows_alive(database: Database) -> list[Worker]:
    with database.transaction() as session:
        return workers.alive(session, LIMIT)


def alive(database: Database) -> list[int]:
    return [row.id for row in rows_alive(database)]


def test_a_worker_takes_back_the_jobs_of_a_dead_one_while_it_beats(database: Database):
    job_id, dead = entries.put_job(database).id, entries.put_worker(database)
    entries.claim(database, job_id, dead)
    with database.transaction() as session:
        session.execute(text("UPDATE workers SET heartbeat_at = now() - interval '1 hour'"))
    runtime = Runtime(settings().model_copy(update={"heartbeat_interval": 0.01, "heartbeat_limit": 10}))

    runtime._recover()

    with database.transaction() as session:
        again = jobs.get(session, job_id)
    assert (again.state, again.deaths) == (JobState.QUEUED, 1)
    assert again.history[0]["worker_id"] == dead
    runtime.database.close()


def test_a_worker_tells_its_memory_and_its_bases(database: Database):
    runtime = Runtime(settings())
    told = runtime._report()
    assert (told["bases"], told["memory"]["resident"] > 0) == ([], True)
    runtime.database.close()
