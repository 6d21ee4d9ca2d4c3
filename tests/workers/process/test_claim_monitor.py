from __future__ import annotations

import pytest

from catalog.database import Database
from catalog.jobs import control as job_control
from catalog.jobs.repository import attempts
from tests.support import catalog as entries
from tests.support.outage import missing_table
from tests.support.waiting import LIMIT, wait_until
from workers.process.claim_monitor import ClaimMonitor


def test_cancelled_job_loses_its_claim_and_others_keep_theirs(database: Database):
    first, second = (entries.put_job(database, f"a/{number}").id for number in range(2))
    worker = entries.put_worker(database)
    entries.claim(database, first, worker, batch=2)
    monitor = ClaimMonitor(database, worker)
    claimed = [monitor.track(job_id) for job_id in (first, second)]

    job_control.cancel(database, first)
    monitor.poll()

    assert [claim.lost for claim in claimed] == [True, False]


def test_job_claimed_again_has_a_new_claim(database: Database):
    job_id, worker = entries.put_job(database).id, entries.put_worker(database)
    entries.claim(database, job_id, worker)
    monitor = ClaimMonitor(database, worker)
    old = monitor.track(job_id)
    with database.transaction() as session:
        attempts.release(session, [worker])
    monitor.poll()
    entries.claim(database, job_id, worker)
    new = monitor.track(job_id)
    monitor.poll()

    assert (old.lost, new.lost) == (True, False)


def test_monitor_survives_errors_of_postgres(database: Database, caplog: pytest.LogCaptureFixture):
    job_id, worker = entries.put_job(database).id, entries.put_worker(database)
    entries.claim(database, job_id, worker)
    with ClaimMonitor(database, worker) as monitor:
        claim = monitor.track(job_id)
        with missing_table(database, "jobs"):
            wait_until(lambda: "Unexpected error in claim monitor" in caplog.text, "a poll has failed")
        assert not claim.lost
        job_control.cancel(database, job_id)
        assert claim.wait(LIMIT)


def test_stopping_worker_loses_present_and_later_claims(database: Database):
    monitor = ClaimMonitor(database, entries.put_worker(database))
    before = monitor.track(1)
    monitor.lose_all()
    assert (before.lost, monitor.track(2).lost) == (True, True)


def test_monitor_polls_while_it_is_entered(database: Database):
    job_id, worker = entries.put_job(database).id, entries.put_worker(database)
    entries.claim(database, job_id, worker)
    with ClaimMonitor(database, worker) as monitor:
        claim = monitor.track(job_id)
        job_control.cancel(database, job_id)
        assert claim.wait(LIMIT)
