from __future__ import annotations

from catalog import interventions
from catalog.database import Database
from catalog.repository import attempts
from tests.catalog import entries
from workers.watching import Watch


def test_a_claim_is_lost_when_its_job_is_cancelled_and_others_stay(database: Database):
    first, second = (entries.put_job(database, f"a/{number}").id for number in range(2))
    worker = entries.put_worker(database)
    entries.claim(database, first, worker, batch=2)
    watch = Watch(database, worker)
    claimed = [watch.take(job_id) for job_id in (first, second)]

    interventions.cancel(database, first)
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


def test_while_it_is_entered_it_looks_by_itself(database: Database):
    job_id, worker = entries.put_job(database).id, entries.put_worker(database)
    entries.claim(database, job_id, worker)
    with Watch(database, worker) as watch:
        claim = watch.take(job_id)
        interventions.cancel(database, job_id)
        assert claim.wait(10)
