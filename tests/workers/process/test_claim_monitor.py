from __future__ import annotations

import pytest

from catalog.database import Database
from catalog.jobs import control as job_control
from catalog.jobs.repository import attempts
from tests.support import catalog as entries
from tests.support.outage import without_its_table
from tests.support.waiting import LIMIT, wait_until
from workers.process.claim_monitor import Watch


def test_a_claim_is_lost_when_its_job_is_cancelled_and_others_stay(database: Database):
    first, second = (entries.put_job(database, f"a/{number}").id for number in range(2))
    worker = entries.put_worker(database)
    entries.claim(database, first, worker, batch=2)
    watch = Watch(database, worker)
    claimed = [watch.take(job_id) for job_id in (first, second)]

    job_control.cancel(database, first)
    watch.look()

    assert [claim.lost for claim in claimed] == [True, False]


def test_a_job_that_is_claimed_again_is_held_anew(database: Database):
    job_id, worker = entries.put_job(database).id, entries.put_worker(database)
    entries.claim(database, job_id, worker)
    watch = Watch(database, worker)
    old = watch.take(job_id)
    with database.transaction() as session:
        attempts.release(session, [worker])
    watch.look()
    entries.claim(database, job_id, worker)
    new = watch.take(job_id)
    watch.look()

    assert (old.lost, new.lost) == (True, False)


def test_it_outlives_every_error_of_postgres(database: Database, caplog: pytest.LogCaptureFixture):
    job_id, worker = entries.put_job(database).id, entries.put_worker(database)
    entries.claim(database, job_id, worker)
    with Watch(database, worker) as watch:
        claim = watch.take(job_id)
        with without_its_table(database, "jobs"):
            wait_until(lambda: "the claim monitor goes on" in caplog.text, "a look has failed")
        assert not claim.lost
        job_control.cancel(database, job_id)
        assert claim.wait(LIMIT)


def test_a_worker_that_stops_loses_what_it_has_and_what_it_takes(database: Database):
    watch = Watch(database, entries.put_worker(database))
    before = watch.take(1)
    watch.give_up()
    assert (before.lost, watch.take(2).lost) == (True, True)


def test_while_it_is_entered_it_looks_by_itself(database: Database):
    job_id, worker = entries.put_job(database).id, entries.put_worker(database)
    entries.claim(database, job_id, worker)
    with Watch(database, worker) as watch:
        claim = watch.take(job_id)
        job_control.cancel(database, job_id)
        assert claim.wait(LIMIT)
