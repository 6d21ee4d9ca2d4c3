from __future__ import annotations

import threading

from sqlalchemy import text

from catalog.database import Database
from catalog.repository import jobs, workers
from catalog.settings import settings
from catalog.tables import JobState
from tests.catalog import entries
from workers.heartbeat import Heartbeat
from workers.runtime import Runtime

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
