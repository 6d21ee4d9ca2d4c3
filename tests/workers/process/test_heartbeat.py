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
from tests.support.outage import missing_table
from tests.support.waiting import wait_until
from workers.bootstrap import Runtime
from workers.process.heartbeat import Heartbeat

LIMIT = 30  # seconds


def test_heartbeat_stores_the_report(database: Database):
    second_beat = threading.Event()
    beats: list[int] = []

    def after() -> None:
        beats.append(1)
        if len(beats) == 2:  # the first beat registers
            second_beat.set()

    heartbeat = Heartbeat(database, "cpu", 0.01, report=lambda: {"activity": "resting"}, after=after)
    heartbeat.start()
    assert second_beat.wait(LIMIT)
    with database.transaction() as session:
        [worker] = workers.list_alive(session, LIMIT)
    heartbeat.stop()
    assert worker.status == {"activity": "resting"}


def test_heartbeat_survives_errors_of_postgres(database: Database, caplog: pytest.LogCaptureFixture):
    heartbeat = Heartbeat(database, "cpu", 0.01)
    heartbeat.start()
    worker_id = heartbeat.worker_id()
    with missing_table(database, "workers"):  # a failover also gives errors that are not connection errors
        wait_until(lambda: "Unexpected error in heartbeat" in caplog.text, "a heartbeat has failed")
    with database.transaction() as session:
        session.execute(text("UPDATE workers SET heartbeat_at = 'epoch'"))
    wait_until(lambda: worker_id in alive(database), "heartbeats continue")
    heartbeat.stop()
    assert alive(database) == []


def test_heartbeat_survives_a_failing_report(database: Database):
    reports = iter([RuntimeError("driver unavailable"), {"activity": "resting"}])

    def report() -> dict[str, object]:
        status = next(reports, {"activity": "resting"})
        if isinstance(status, Exception):
            raise status
        return status

    heartbeat = Heartbeat(database, "cpu", 0.01, report=report)
    heartbeat.start()
    wait_until(
        lambda: [row.status for row in rows_alive(database)] == [{"activity": "resting"}], "a later report is stored"
    )
    heartbeat.stop()


def test_killed_worker_of_this_machine_is_detected_at_once_and_its_job_counts_a_death(
    database: Database,
):
    job_id = entries.put_job(database).id
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        with database.transaction() as session:
            killed = workers.register(session, "here", process.pid, "cpu", identity(process.pid))
        entries.claim(database, job_id, killed)
        assert alive(database) == [killed]
        assert recover(database, requeue_after=LIMIT, max_worker_deaths=2).released == []
        process.kill()
    assert alive(database) == []

    assert recover(database, requeue_after=LIMIT, max_worker_deaths=2).released == [job_id]

    with database.transaction() as session:
        requeued = jobs.get(session, job_id)
        assert (requeued.state, requeued.worker_deaths) == (JobState.QUEUED, 1)
        assert session.get_one(Worker, killed).stopped_at is not None


def test_worker_of_another_machine_is_judged_by_its_heartbeat(database: Database):
    with database.transaction() as session:
        remote_worker = workers.register(session, "there", 1, "cpu", "another-boot/pid:[1]/1/1")
    assert alive(database) == [remote_worker]
    assert recover(database, requeue_after=LIMIT, max_worker_deaths=2).released == []
    assert alive(database) == [remote_worker]


def rows_alive(database: Database) -> list[Worker]:
    with database.transaction() as session:
        return workers.list_alive(session, LIMIT)


def alive(database: Database) -> list[int]:
    return [row.id for row in rows_alive(database)]


def test_worker_requeues_jobs_of_a_dead_worker_between_heartbeats(database: Database):
    job_id, dead = entries.put_job(database).id, entries.put_worker(database)
    entries.claim(database, job_id, dead)
    with database.transaction() as session:
        session.execute(text("UPDATE workers SET heartbeat_at = now() - interval '1 hour'"))
    runtime = Runtime(settings().model_copy(update={"heartbeat_interval": 0.01, "heartbeat_timeout": 10}))

    runtime._recover()

    with database.transaction() as session:
        requeued = jobs.get(session, job_id)
    assert (requeued.state, requeued.worker_deaths) == (JobState.QUEUED, 1)
    assert requeued.history[0]["worker_id"] == dead
    runtime.close()


def test_report_has_memory_and_bases(database: Database):
    runtime = Runtime(settings())
    status = runtime._report()
    assert (status["bases"], status["memory"]["resident"] > 0) == ([], True)
    runtime.close()
