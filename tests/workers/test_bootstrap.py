from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from catalog.database import Database
from catalog.jobs.repository import jobs, workers
from catalog.settings import settings
from catalog.tables import JobState
from tests.support import catalog as entries
from workers.bootstrap import Runtime
from workers.process.stages import RunningStage, Stage

LIMIT = 30  # seconds


@pytest.fixture
def runtime(database: Database) -> Iterator[Runtime]:
    runtime = Runtime(settings())
    runtime.heartbeat.start()
    yield runtime
    runtime.stop()


def test_worker_with_a_hung_stage_hands_all_jobs_back_and_counts_a_death_for_those_of_the_stage(
    database: Database, runtime: Runtime
):
    hung, other = (entries.put_job(database, name).id for name in ("o/hung", "o/other"))
    worker_id = runtime.heartbeat.worker_id(LIMIT)
    for job_id in (hung, other):
        entries.claim(database, job_id, worker_id)

    runtime._hand_back(RunningStage(Stage.FORWARD, 1.0, [hung]))

    with database.transaction() as session:
        handed_back = [jobs.get(session, job_id) for job_id in (hung, other)]
        assert workers.list_alive(session, LIMIT) == []
    assert [(job.state, job.worker_deaths) for job in handed_back] == [(JobState.QUEUED, 1), (JobState.QUEUED, 0)]


def test_heartbeat_needs_no_connection_of_the_jobs(database: Database):
    runtime = Runtime(settings())
    with ExitStack() as taken:
        for _ in range(40):  # all connections of the pool
            taken.enter_context(runtime.database.engine.connect())
        runtime.heartbeat.start()
        assert runtime.heartbeat.worker_id(LIMIT)
    runtime.stop()


def test_deadlines_come_from_the_settings(database: Database):
    runtime = Runtime(settings().model_copy(update={"load_deadline": 7.0}))
    assert (runtime._stages._deadlines.load, runtime._stages._deadlines.merge) == (7.0, settings().merge_deadline)
    runtime.close()
