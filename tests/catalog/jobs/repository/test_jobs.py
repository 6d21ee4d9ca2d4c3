from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import IntegrityError

from catalog.database import Database
from catalog.errors import CorruptWeights, HubUnavailable, JobNotFound, TokenRequired
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


def test_submitting_twice_gives_the_same_job(database: Database):
    with database.transaction() as session:
        model = models.ensure(session, "a/b", Source.HUB)
        first, made = jobs.submit(session, model, None)
        second, made_again = jobs.submit(session, model, None)

    assert (first.id, made, made_again) == (second.id, True, False)


def test_a_running_job_is_given_again(database: Database, worker: int):
    job = entries.put_job(database)
    entries.claim(database, job.id, worker)

    assert entries.put_job(database).id == job.id


@pytest.mark.parametrize("state", [JobState.DONE, JobState.FAILED, JobState.CANCELLED])
def test_a_job_that_is_over_is_not_given_again(database: Database, state: JobState):
    job = entries.put_job(database)
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET state = :state"), {"state": state})

    assert entries.put_job(database).id != job.id


def test_threads_that_submit_at_once_get_one_job(database: Database):
    model = entries.put_model(database)
    barrier = threading.Barrier(8)

    def submit(_: int) -> tuple[int, bool]:
        barrier.wait(LIMIT)
        with database.transaction() as session:
            job, made = jobs.submit(session, model, None)
            return job.id, made

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(submit, range(8)))

    assert len({job_id for job_id, _ in found}) == 1
    assert sum(made for _, made in found) == 1


def test_a_job_that_is_not_there_is_not_found(database: Database):
    with pytest.raises(JobNotFound), database.transaction() as session:
        jobs.get(session, 1)


def test_pages_go_from_the_newest_to_the_oldest_without_gaps(database: Database):
    ids = put_jobs(database, 7)
    seen: list[int] = []
    with database.transaction() as session:
        while page := jobs.page(session, before=seen[-1] if seen else None, limit=3):
            seen += [job.id for job in page]
    assert seen == ids[::-1]


def test_a_page_may_show_one_state_alone(database: Database, worker: int):
    ids = put_jobs(database, 3)
    entries.claim(database, ids[1], worker)
    with database.transaction() as session:
        assert [job.id for job in jobs.page(session, state=JobState.FETCHING)] == [ids[1]]
        assert [job.id for job in jobs.page(session, state=JobState.QUEUED)] == [ids[2], ids[0]]


def test_a_claim_takes_jobs_of_the_same_base_alone(database: Database, worker: int):
    ones, others = put_jobs(database, 3, "base/one"), put_jobs(database, 3, "base/two")

    assert entries.claim(database, others[1], worker, batch=10) == others
    assert states(database, ones) == [JobState.QUEUED] * 3


def test_jobs_of_no_known_base_are_alike(database: Database, worker: int):
    unknown, known = put_jobs(database, 2, None), put_jobs(database, 2, "base/one")

    assert entries.claim(database, unknown[0], worker, batch=10) == unknown
    assert states(database, known) == [JobState.QUEUED] * 2


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_claim_takes_the_job_that_was_asked_for_and_no_more_than_a_batch(database: Database, worker: int, batch: int):
    ids = put_jobs(database, 5)

    claimed = entries.claim(database, ids[4], worker, batch)

    assert claimed == sorted([*ids[: batch - 1], ids[4]])  # the oldest ones come along


def test_a_claimed_job_says_who_has_it(database: Database, worker: int):
    job = entries.put_job(database)
    entries.claim(database, job.id, worker)
    with database.transaction() as session:
        claimed = jobs.get(session, job.id)
    assert (claimed.state, claimed.worker_id, claimed.attempts) == (JobState.FETCHING, worker, 1)
    assert claimed.started_at is not None


def test_a_message_that_arrives_twice_claims_nothing(database: Database, worker: int):
    ids = put_jobs(database, 3)
    assert entries.claim(database, ids[0], worker) == [ids[0]]

    assert entries.claim(database, ids[0], worker, batch=10) == []
    assert states(database, ids[1:]) == [JobState.QUEUED] * 2


def test_a_job_whose_time_has_not_come_is_not_claimed(database: Database, worker: int):
    later, now = put_jobs(database, 2)
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET available_at = now() + interval '1 hour' WHERE id = :id"), {"id": later})

    assert entries.claim(database, later, worker, batch=10) == []
    assert entries.claim(database, now, worker, batch=10) == [now]


def test_a_claim_does_not_wait_for_one_that_is_not_committed(database: Database, worker: int):
    ids = put_jobs(database, 4)
    with database.transaction() as first, database.transaction() as second:
        mine = [job.id for job in claims.claim(first, ids[0], worker, 2)]
        second.execute(text("SET LOCAL lock_timeout = '1s'"))
        assert claims.claim(second, ids[0], worker, 10) == []
        theirs = [job.id for job in claims.claim(second, ids[3], worker, 10)]
    assert (mine, theirs) == (ids[:2], ids[2:])


def test_workers_that_claim_at_once_never_both_win(database: Database):
    ids = put_jobs(database, 60)
    ours = [entries.put_worker(database) for _ in range(6)]
    barrier = threading.Barrier(len(ours))

    def work(worker_id: int) -> list[int]:
        barrier.wait(LIMIT)
        return [claimed for job_id in ids for claimed in entries.claim(database, job_id, worker_id, 4)]

    with ThreadPoolExecutor(len(ours)) as pool:
        claimed = [job_id for found in pool.map(work, ours) for job_id in found]

    assert sorted(claimed) == ids
    with database.transaction() as session:
        assert {jobs.get(session, job_id).attempts for job_id in ids} == {1}


def test_progress_moves_on_the_jobs_that_are_ones_own(database: Database, worker: int):
    mine, theirs, queued = put_jobs(database, 3)
    entries.claim(database, mine, worker)
    entries.claim(database, theirs, entries.put_worker(database))

    with database.transaction() as session:
        moved = attempts.advance(session, [mine, theirs, queued], worker, JobState.ENCODING, 0.5)

    assert moved == [mine]
    assert states(database, [mine, theirs, queued]) == [JobState.ENCODING, JobState.FETCHING, JobState.QUEUED]


def test_a_finished_job_is_whole(database: Database, worker: int):
    job = entries.put_job(database)
    entries.claim(database, job.id, worker)
    with database.transaction() as session:
        assert attempts.finish(session, job.id, worker, "sha")
    with database.transaction() as session:
        done = jobs.get(session, job.id)
        assert jobs.latest_done(session, done.model_id, "sha") is done
        assert jobs.latest_done(session, done.model_id, "other") is None
    assert (done.state, done.progress, done.sha, done.error_code) == (JobState.DONE, 1, "sha", None)
    assert done.finished_at is not None


def test_a_worker_that_lost_its_job_can_neither_end_it_nor_move_it(database: Database, worker: int):
    job = entries.put_job(database)
    entries.claim(database, job.id, worker)
    other = entries.put_worker(database)
    with database.transaction() as session:
        attempts.release(session, [worker])
    entries.claim(database, job.id, other)

    with database.transaction() as session:
        assert attempts.advance(session, [job.id], worker, JobState.ENCODING, 0.5) == []
        assert not attempts.finish(session, job.id, worker, "sha")
        assert not attempts.fail(session, job.id, worker, CorruptWeights("cut"))
        assert not attempts.retry(session, job.id, worker, HubUnavailable("away"), 1)
        assert attempts.release(session, [worker]) == []
    with database.transaction() as session:
        kept = jobs.get(session, job.id)
        assert (kept.state, kept.worker_id, kept.sha, kept.error_code) == (JobState.FETCHING, other, None, None)


def test_a_job_that_is_over_cannot_end_again(database: Database, worker: int):
    job = entries.put_job(database)
    entries.claim(database, job.id, worker)
    with database.transaction() as session:
        assert attempts.fail(session, job.id, worker, CorruptWeights("cut"))
        assert not attempts.finish(session, job.id, worker, "sha")
    assert states(database, [job.id]) == [JobState.FAILED]


def test_a_failed_job_keeps_code_sentence_and_attempts(database: Database, worker: int):
    job = entries.put_job(database)
    entries.claim(database, job.id, worker)
    with database.transaction() as session:
        attempts.fail(session, job.id, worker, CorruptWeights("It is cut off."))
    with database.transaction() as session:
        failed = jobs.get(session, job.id)
    assert (failed.error_code, failed.error_message, failed.attempts) == ("corrupt_weights", "It is cut off.", 1)


def test_a_retry_waits_and_keeps_its_error_until_the_next_claim(database: Database, worker: int):
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
        again = jobs.get(session, job.id)
        assert (again.error_code, again.error_message, again.attempts) == (None, None, 2)


def test_released_jobs_can_be_claimed_at_once(database: Database, worker: int):
    ids = put_jobs(database, 2)
    entries.claim(database, ids[0], worker, batch=2)
    with database.transaction() as session:
        assert sorted(attempts.release(session, [worker])) == ids

    assert entries.claim(database, ids[0], entries.put_worker(database), batch=2) == ids


def test_jobs_of_the_dead_alone_are_released(database: Database):
    ids = put_jobs(database, 3)
    dead, alive, stopped = (entries.put_worker(database) for _ in range(3))
    for job_id, worker_id in zip(ids, (dead, alive, stopped), strict=True):
        entries.claim(database, job_id, worker_id)
    with database.transaction() as session:
        session.execute(text("UPDATE workers SET heartbeat_at = now() - interval '31 seconds'"))
        workers.beat(session, alive)
        workers.beat(session, stopped)
        workers.stop(session, stopped)

    with database.transaction() as session:
        assert sorted(recovery.recover(session, 30, deadly=2).released) == [ids[0], ids[2]]
    with database.transaction() as session:
        assert recovery.recover(session, 30, deadly=2).released == []


def test_what_is_due_counts_as_rung(database: Database):
    ids = put_jobs(database, 3)
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET rung_at = now() - interval '31 seconds'"))
        assert sorted(recovery.due_for_ringing(session, 30, 10)) == ids
    with database.transaction() as session:
        assert recovery.due_for_ringing(session, 30, 10) == []


def test_the_oldest_are_due_first_and_no_more_than_the_limit(database: Database):
    ids = put_jobs(database, 5)
    with database.transaction() as session:
        oldest_last = "available_at = now() - make_interval(secs => 1000 + id), rung_at = now() - interval '1 hour'"
        session.execute(text(f"UPDATE jobs SET {oldest_last}"))
        assert sorted(recovery.due_for_ringing(session, 30, 2)) == ids[3:]


def test_running_jobs_and_jobs_of_the_future_are_not_due(database: Database, worker: int):
    running, later = put_jobs(database, 2)
    entries.claim(database, running, worker)
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET rung_at = now() - interval '1 hour'"))
        session.execute(text("UPDATE jobs SET available_at = now() + interval '1 hour' WHERE id = :id"), {"id": later})
    with database.transaction() as session:
        assert recovery.due_for_ringing(session, 30, 10) == []


def test_sweepers_that_look_at_once_do_not_ring_for_the_same_job(database: Database):
    ids = put_jobs(database, 4)
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET rung_at = now() - interval '1 hour'"))
    with database.transaction() as first, database.transaction() as second:
        found = [*recovery.due_for_ringing(first, 30, 2), *recovery.due_for_ringing(second, 30, 10)]
    assert sorted(found) == ids


def test_every_state_is_counted(database: Database, worker: int):
    ids = put_jobs(database, 3)
    entries.claim(database, ids[0], worker)
    with database.transaction() as session:
        assert jobs.counts(session) == dict.fromkeys(JobState, 0) | {JobState.QUEUED: 2, JobState.FETCHING: 1}


@pytest.mark.parametrize(
    "values",
    [{"state": JobState.DONE}, {"state": JobState.FAILED}, {"state": JobState.CANCELLED}, {"viewer": None}],
)
def test_the_database_keeps_no_token_on_a_job_that_is_over_or_nobodys(database: Database, values: dict):
    job = entries.put_private_job(database, "owner/model", "me")
    with pytest.raises(IntegrityError, match="ck_jobs_token"), database.transaction() as session:
        session.execute(update(Job).where(Job.id == job.id).values(**values))


def test_no_job_that_everybody_may_see_is_made_for_a_private_model(database: Database):
    with database.transaction() as session:
        model = models.ensure(session, "owner/model", Source.HUB, private=True)
        with pytest.raises(TokenRequired):
            jobs.submit(session, model, None)
