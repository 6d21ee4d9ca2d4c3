from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import IntegrityError

from catalog.database import Database
from catalog.errors import CorruptWeights, HubTokenRequired, HubUnavailable, JobNotFound
from catalog.jobs.repository import attempts, claims, jobs, recovery, workers
from catalog.models.repository import models
from catalog.tables import Job, JobState, Source
from tests.support import catalog as entries
from tests.support.waiting import LIMIT


@pytest.fixture
def worker(database: Database) -> int:
    return entries.put_worker(database)


def put_jobs(database: Database, count: int, hint: str | None = None) -> list[int]:
    return [entries.put_job(database, f"owner/{hint}-{number}", hint).id for number in range(count)]


def states(database: Database, ids: Sequence[int]) -> list[str]:
    with database.transaction() as session:
        return [jobs.get(session, job_id).state for job_id in ids]


def test_resubmission_returns_the_same_job(database: Database):
    with database.transaction() as session:
        model = models.get_or_create(session, "a/b", Source.HUB)
        first, created = jobs.submit(session, model, None)
        second, created_again = jobs.submit(session, model, None)

    assert (first.id, created, created_again) == (second.id, True, False)


def test_submission_returns_a_running_job(database: Database, worker: int):
    job = entries.put_job(database)
    entries.claim(database, job.id, worker)

    assert entries.put_job(database).id == job.id


@pytest.mark.parametrize("state", [JobState.DONE, JobState.FAILED, JobState.CANCELLED])
def test_submission_does_not_return_a_finished_job(database: Database, state: JobState):
    job = entries.put_job(database)
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET state = :state"), {"state": state})

    assert entries.put_job(database).id != job.id


def test_concurrent_submissions_get_one_job(database: Database):
    model = entries.put_model(database)
    barrier = threading.Barrier(8)

    def submit(_: int) -> tuple[int, bool]:
        barrier.wait(LIMIT)
        with database.transaction() as session:
            job, created = jobs.submit(session, model, None)
            return job.id, created

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(submit, range(8)))

    assert len({job_id for job_id, _ in results}) == 1
    assert sum(created for _, created in results) == 1


def test_unknown_job_raises_job_not_found(database: Database):
    with pytest.raises(JobNotFound), database.transaction() as session:
        jobs.get(session, 1)


def test_pages_list_all_jobs_newest_first(database: Database):
    ids = put_jobs(database, 7)
    seen: list[int] = []
    with database.transaction() as session:
        while page := jobs.list_page(session, before=seen[-1] if seen else None, limit=3):
            seen += [job.id for job in page]
    assert seen == ids[::-1]


def test_pages_can_be_filtered_by_state(database: Database, worker: int):
    ids = put_jobs(database, 3)
    entries.claim(database, ids[1], worker)
    with database.transaction() as session:
        assert [job.id for job in jobs.list_page(session, state=JobState.FETCHING)] == [ids[1]]
        assert [job.id for job in jobs.list_page(session, state=JobState.QUEUED)] == [ids[2], ids[0]]


def test_claim_takes_only_jobs_of_the_same_base(database: Database, worker: int):
    ones, others = put_jobs(database, 3, "base/one"), put_jobs(database, 3, "base/two")

    assert entries.claim(database, others[1], worker, batch=10) == others
    assert states(database, ones) == [JobState.QUEUED] * 3


def test_jobs_without_a_base_hint_are_claimed_together(database: Database, worker: int):
    unknown, known = put_jobs(database, 2, None), put_jobs(database, 2, "base/one")

    assert entries.claim(database, unknown[0], worker, batch=10) == unknown
    assert states(database, known) == [JobState.QUEUED] * 2


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_claim_takes_the_given_job_and_at_most_a_batch(database: Database, worker: int, batch: int):
    ids = put_jobs(database, 5)

    claimed = entries.claim(database, ids[4], worker, batch)

    assert claimed == sorted([*ids[: batch - 1], ids[4]])  # with the oldest others


def test_claimed_job_has_its_worker_and_start_time(database: Database, worker: int):
    job = entries.put_job(database)
    entries.claim(database, job.id, worker)
    with database.transaction() as session:
        claimed = jobs.get(session, job.id)
    assert (claimed.state, claimed.worker_id, claimed.attempts) == (JobState.FETCHING, worker, 1)
    assert claimed.started_at is not None


def test_duplicate_message_claims_nothing(database: Database, worker: int):
    ids = put_jobs(database, 3)
    assert entries.claim(database, ids[0], worker) == [ids[0]]

    assert entries.claim(database, ids[0], worker, batch=10) == []
    assert states(database, ids[1:]) == [JobState.QUEUED] * 2


def test_job_that_is_not_due_is_not_claimed(database: Database, worker: int):
    later, now = put_jobs(database, 2)
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET available_at = now() + interval '1 hour' WHERE id = :id"), {"id": later})

    assert entries.claim(database, later, worker, batch=10) == []
    assert entries.claim(database, now, worker, batch=10) == [now]


def test_claim_does_not_wait_for_an_uncommitted_one(database: Database, worker: int):
    ids = put_jobs(database, 4)
    with database.transaction() as first, database.transaction() as second:
        claimed_first = [job.id for job in claims.claim(first, ids[0], worker, 2)]
        second.execute(text("SET LOCAL lock_timeout = '1s'"))
        assert claims.claim(second, ids[0], worker, 10) == []
        claimed_second = [job.id for job in claims.claim(second, ids[3], worker, 10)]
    assert (claimed_first, claimed_second) == (ids[:2], ids[2:])


def test_concurrent_claims_never_take_the_same_job(database: Database):
    ids = put_jobs(database, 60)
    worker_ids = [entries.put_worker(database) for _ in range(6)]
    barrier = threading.Barrier(len(worker_ids))

    def work(worker_id: int) -> list[int]:
        barrier.wait(LIMIT)
        return [claimed for job_id in ids for claimed in entries.claim(database, job_id, worker_id, 4)]

    with ThreadPoolExecutor(len(worker_ids)) as pool:
        claimed = [job_id for job_ids in pool.map(work, worker_ids) for job_id in job_ids]

    assert sorted(claimed) == ids
    with database.transaction() as session:
        assert {jobs.get(session, job_id).attempts for job_id in ids} == {1}


def test_progress_is_updated_only_on_the_workers_own_jobs(database: Database, worker: int):
    own, other, queued = put_jobs(database, 3)
    entries.claim(database, own, worker)
    entries.claim(database, other, entries.put_worker(database))

    with database.transaction() as session:
        updated = attempts.update_progress(session, [own, other, queued], worker, JobState.ENCODING, 0.5)

    assert updated == [own]
    assert states(database, [own, other, queued]) == [JobState.ENCODING, JobState.FETCHING, JobState.QUEUED]


def test_finished_job_has_all_its_values(database: Database, worker: int):
    job = entries.put_job(database)
    entries.claim(database, job.id, worker)
    with database.transaction() as session:
        assert attempts.finish(session, job.id, worker, "sha")
    with database.transaction() as session:
        done = jobs.get(session, job.id)
        assert jobs.find_latest_done(session, done.model_id, "sha") is done
        assert jobs.find_latest_done(session, done.model_id, "other") is None
    assert (done.state, done.progress, done.sha, done.error_code) == (JobState.DONE, 1, "sha", None)
    assert done.finished_at is not None


def test_worker_cannot_change_a_lost_job(database: Database, worker: int):
    job = entries.put_job(database)
    entries.claim(database, job.id, worker)
    other = entries.put_worker(database)
    with database.transaction() as session:
        attempts.release(session, [worker])
    entries.claim(database, job.id, other)

    with database.transaction() as session:
        assert attempts.update_progress(session, [job.id], worker, JobState.ENCODING, 0.5) == []
        assert not attempts.finish(session, job.id, worker, "sha")
        assert not attempts.fail(session, job.id, worker, CorruptWeights("cut"))
        assert not attempts.retry(session, job.id, worker, HubUnavailable("away"), 1)
        assert attempts.release(session, [worker]) == []
    with database.transaction() as session:
        job_now = jobs.get(session, job.id)
        assert (job_now.state, job_now.worker_id, job_now.sha, job_now.error_code) == (
            JobState.FETCHING,
            other,
            None,
            None,
        )


def test_failed_job_cannot_be_finished(database: Database, worker: int):
    job = entries.put_job(database)
    entries.claim(database, job.id, worker)
    with database.transaction() as session:
        assert attempts.fail(session, job.id, worker, CorruptWeights("cut"))
        assert not attempts.finish(session, job.id, worker, "sha")
    assert states(database, [job.id]) == [JobState.FAILED]


def test_failed_job_keeps_code_message_and_attempts(database: Database, worker: int):
    job = entries.put_job(database)
    entries.claim(database, job.id, worker)
    with database.transaction() as session:
        attempts.fail(session, job.id, worker, CorruptWeights("It is cut off."))
    with database.transaction() as session:
        failed = jobs.get(session, job.id)
    assert (failed.error_code, failed.error_message, failed.attempts) == ("corrupt_weights", "It is cut off.", 1)


def test_retry_is_delayed_and_keeps_its_error_until_the_next_claim(database: Database, worker: int):
    job = entries.put_job(database)
    entries.claim(database, job.id, worker)
    with database.transaction() as session:
        assert attempts.retry(session, job.id, worker, HubUnavailable("away"), delay=60)
    assert entries.claim(database, job.id, worker) == []
    with database.transaction() as session:
        waiting = jobs.get(session, job.id)
        assert (waiting.state, waiting.error_code, waiting.worker_id) == (JobState.QUEUED, "hub_unavailable", None)
        assert 59 < (waiting.available_at - waiting.updated_at).total_seconds() < 61
        session.execute(text("UPDATE jobs SET available_at = now()"))

    assert entries.claim(database, job.id, worker) == [job.id]
    with database.transaction() as session:
        claimed = jobs.get(session, job.id)
        assert (claimed.error_code, claimed.error_message, claimed.attempts) == (None, None, 2)


def test_released_jobs_can_be_claimed_immediately(database: Database, worker: int):
    ids = put_jobs(database, 2)
    entries.claim(database, ids[0], worker, batch=2)
    with database.transaction() as session:
        assert sorted(attempts.release(session, [worker])) == ids

    assert entries.claim(database, ids[0], entries.put_worker(database), batch=2) == ids


def test_only_jobs_of_dead_and_stopped_workers_are_released(database: Database):
    ids = put_jobs(database, 3)
    dead, alive, stopped = (entries.put_worker(database) for _ in range(3))
    for job_id, worker_id in zip(ids, (dead, alive, stopped), strict=True):
        entries.claim(database, job_id, worker_id)
    with database.transaction() as session:
        session.execute(text("UPDATE workers SET heartbeat_at = now() - interval '31 seconds'"))
        workers.record_heartbeat(session, alive)
        workers.record_heartbeat(session, stopped)
        workers.mark_stopped(session, stopped)

    with database.transaction() as session:
        assert sorted(recovery.recover(session, 30, max_worker_deaths=2).released) == [ids[0], ids[2]]
    with database.transaction() as session:
        assert recovery.recover(session, 30, max_worker_deaths=2).released == []


def test_stale_jobs_are_returned_once(database: Database):
    ids = put_jobs(database, 3)
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET enqueued_at = now() - interval '31 seconds'"))
        assert sorted(recovery.start_redelivery(session, 30, 10)) == ids
    with database.transaction() as session:
        assert recovery.start_redelivery(session, 30, 10) == []


def test_oldest_stale_jobs_come_first_up_to_the_limit(database: Database):
    ids = put_jobs(database, 5)
    with database.transaction() as session:
        oldest_last = "available_at = now() - make_interval(secs => 1000 + id), enqueued_at = now() - interval '1 hour'"
        session.execute(text(f"UPDATE jobs SET {oldest_last}"))
        assert sorted(recovery.start_redelivery(session, 30, 2)) == ids[3:]


def test_running_jobs_and_future_jobs_are_not_stale(database: Database, worker: int):
    running, later = put_jobs(database, 2)
    entries.claim(database, running, worker)
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET enqueued_at = now() - interval '1 hour'"))
        session.execute(text("UPDATE jobs SET available_at = now() + interval '1 hour' WHERE id = :id"), {"id": later})
    with database.transaction() as session:
        assert recovery.start_redelivery(session, 30, 10) == []


def test_concurrent_sweeps_do_not_return_the_same_stale_job(database: Database):
    ids = put_jobs(database, 4)
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET enqueued_at = now() - interval '1 hour'"))
    with database.transaction() as first, database.transaction() as second:
        stale = [*recovery.start_redelivery(first, 30, 2), *recovery.start_redelivery(second, 30, 10)]
    assert sorted(stale) == ids


def test_jobs_are_counted_in_every_state(database: Database, worker: int):
    ids = put_jobs(database, 3)
    entries.claim(database, ids[0], worker)
    with database.transaction() as session:
        assert jobs.count_by_state(session) == dict.fromkeys(JobState, 0) | {JobState.QUEUED: 2, JobState.FETCHING: 1}


@pytest.mark.parametrize(
    "values",
    [{"state": JobState.DONE}, {"state": JobState.FAILED}, {"state": JobState.CANCELLED}, {"viewer": None}],
)
def test_database_rejects_a_token_on_a_finished_or_public_job(database: Database, values: dict):
    job = entries.put_private_job(database, "owner/model", "me")
    with pytest.raises(IntegrityError, match="ck_jobs_token"), database.transaction() as session:
        session.execute(update(Job).where(Job.id == job.id).values(**values))


def test_public_job_for_a_private_model_is_refused(database: Database):
    with database.transaction() as session:
        model = models.get_or_create(session, "owner/model", Source.HUB, private=True)
        with pytest.raises(HubTokenRequired):
            jobs.submit(session, model, None)
