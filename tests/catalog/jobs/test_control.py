from __future__ import annotations

import pytest
from sqlalchemy import text, update

from catalog.database import Database
from catalog.errors import (
    CorruptWeights,
    HubUnavailable,
    JobNotFound,
    JobOver,
    NotRetriable,
    Quarantined,
    TokenRequired,
    TooManyJobs,
)
from catalog.jobs import control as job_control
from catalog.jobs.quotas import Quota
from catalog.jobs.repository import attempts, jobs
from catalog.jobs.submissions import submit_repo
from catalog.models.repo_ref import RepoRef
from catalog.models.repository import models
from catalog.tables import Job, JobState
from tests.support import catalog as entries


@pytest.fixture
def worker(database: Database) -> int:
    return entries.put_worker(database)


def put_running(database: Database, worker: int, state: JobState, name: str = "owner/model") -> int:
    job_id = entries.put_job(database, name).id
    if state != JobState.QUEUED:
        entries.claim(database, job_id, worker)
    if state == JobState.ENCODING:
        with database.transaction() as session:
            attempts.advance(session, [job_id], worker, state, 0.5)
    return job_id


def put_failed(database: Database, worker: int, name: str = "owner/model", error: type = HubUnavailable) -> int:
    job_id = put_running(database, worker, JobState.FETCHING, name)
    with database.transaction() as session:
        attempts.fail(session, job_id, worker, error("It went wrong."))
    return job_id


def put_quarantined(database: Database, worker: int) -> int:
    job_id = put_failed(database, worker, error=Quarantined)
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET deaths = 2"))
        models.mark_failed(session, [jobs.get(session, job_id).model_id])
    return job_id


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.FETCHING, JobState.ENCODING])
def test_a_cancelled_job_can_neither_go_on_nor_be_stored(database: Database, worker: int, state: JobState):
    job_id = put_running(database, worker, state)

    assert job_control.cancel(database, job_id).state == JobState.CANCELLED

    with database.transaction() as session:
        assert attempts.advance(session, [job_id], worker, JobState.ENCODING, 0.6) == []
        assert not attempts.finish(session, job_id, worker, "sha")
        assert not attempts.retry(session, job_id, worker, HubUnavailable("away"), 1)
        cancelled = jobs.get(session, job_id)
    assert (cancelled.state, cancelled.finished_at is not None) == (JobState.CANCELLED, True)


def test_the_history_says_at_what_a_job_was_cancelled(database: Database, worker: int):
    job_id = put_running(database, worker, JobState.ENCODING)
    [attempt] = job_control.cancel(database, job_id).history
    assert (attempt["outcome"], attempt["state"], attempt["worker_id"]) == ("cancelled", "encoding", worker)


def test_cancelling_twice_is_cancelling_once(database: Database):
    job_id = entries.put_job(database).id
    first = job_control.cancel(database, job_id)
    assert job_control.cancel(database, job_id).finished_at == first.finished_at


def test_what_is_over_cannot_be_cancelled(database: Database, worker: int):
    with pytest.raises(JobOver):
        job_control.cancel(database, put_failed(database, worker))


def test_what_is_not_there_can_neither_be_cancelled_nor_retried(database: Database):
    for act in (job_control.cancel, job_control.retry):
        with pytest.raises(JobNotFound):
            act(database, 999)


def test_a_failed_job_is_queued_as_if_it_were_new_and_keeps_its_history(database: Database, worker: int):
    job_id = put_failed(database, worker)

    again = job_control.retry(database, job_id)

    assert (again.id, again.state, again.attempts, again.error_code) == (job_id, JobState.QUEUED, 0, None)
    assert [each["code"] for each in again.history] == ["hub_unavailable"]
    assert entries.claim(database, job_id, worker) == [job_id]


def test_a_cancelled_job_may_be_retried(database: Database):
    job_id = entries.put_job(database).id
    job_control.cancel(database, job_id)
    assert job_control.retry(database, job_id).state == JobState.QUEUED


def test_what_is_done_is_not_retried(database: Database, worker: int):
    job_id = put_running(database, worker, JobState.FETCHING)
    with database.transaction() as session:
        attempts.finish(session, job_id, worker, "sha")
    with pytest.raises(NotRetriable):
        job_control.retry(database, job_id)


def test_a_retry_gives_the_job_that_does_the_same_already(database: Database, worker: int):
    failed, active = put_failed(database, worker), entries.put_job(database).id
    assert job_control.retry(database, failed).id == active


def test_a_retry_counts_against_the_quota_of_whoever_asks(database: Database, worker: int):
    job_id = put_failed(database, worker)
    quota = Quota.of_key("key", 1)
    submit_repo(database, RepoRef("owner/other"), quota)
    with pytest.raises(TooManyJobs):
        job_control.retry(database, job_id, quota)
    with database.transaction() as session:
        assert jobs.get(session, job_id).state == JobState.FAILED


def test_jobs_are_retried_in_bulk_by_their_error(database: Database, worker: int):
    away = [put_failed(database, worker, f"owner/away-{number}") for number in range(3)]
    broken = put_failed(database, worker, "owner/broken", CorruptWeights)

    assert job_control.retry_failed(database, "hub_unavailable") == 3

    with database.transaction() as session:
        assert {jobs.get(session, job_id).state for job_id in away} == {JobState.QUEUED}
        assert jobs.get(session, broken).state == JobState.FAILED


def test_a_bulk_is_retried_piece_by_piece(database: Database, worker: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(job_control, "BULK", 2)
    for number in range(5):
        put_failed(database, worker, f"owner/{number}")
    assert job_control.retry_failed(database, "hub_unavailable") == 5


def test_of_several_failures_of_one_model_the_last_alone_is_retried(database: Database, worker: int):
    first, second = put_failed(database, worker), put_failed(database, worker)
    assert job_control.retry_failed(database, "hub_unavailable") == 1
    with database.transaction() as session:
        assert [jobs.get(session, job_id).state for job_id in (first, second)] == [JobState.FAILED, JobState.QUEUED]


def test_a_failure_beside_which_a_retry_runs_is_left(database: Database, worker: int):
    first, _ = put_failed(database, worker), put_failed(database, worker)
    job_control.retry(database, first)
    assert job_control.retry_failed(database, "hub_unavailable") == 0


def test_a_quarantined_job_is_retried_by_an_admin_alone(database: Database, worker: int):
    job_id = put_quarantined(database, worker)
    with pytest.raises(Quarantined):
        job_control.retry(database, job_id)

    again = job_control.retry(database, job_id, by_admin=True)

    assert (again.state, again.deaths) == (JobState.QUEUED, 0)


def test_submitting_a_quarantined_model_again_gives_the_job_that_says_so(database: Database, worker: int):
    job_id = put_quarantined(database, worker)
    for revision in (None, "main"):
        given = submit_repo(database, RepoRef("owner/model", revision))
        assert (given.id, given.error_code) == (job_id, "quarantined")


def test_a_queue_is_drained_when_nothing_of_it_runs_any_more(database: Database, worker: int):
    job_id = put_running(database, worker, JobState.FETCHING)
    assert not job_control.pause(database, "encode").drained
    job_control.cancel(database, job_id)
    assert job_control.queue(database, "encode").drained
    assert not job_control.resume(database, "encode").drained


def test_an_admin_lets_a_job_that_came_with_a_token_out_of_quarantine_to_be_submitted_again(database: Database):
    job = entries.put_private_job(database, "owner/model", "me")
    quota = Quota("me", 10)
    with database.transaction() as session:
        killed = {"state": JobState.FAILED, "error_code": Quarantined.code, "token": None}
        session.execute(update(Job).where(Job.id == job.id).values(**killed))
    assert submit_repo(database, RepoRef("owner/model"), quota, b"sealed").id == job.id
    others = submit_repo(database, RepoRef("owner/model"), Quota("you", 10), b"sealed")
    assert others.id != job.id

    let_go = job_control.retry(database, job.id, by_admin=True)

    assert (let_go.state, let_go.error_code) == (JobState.FAILED, TokenRequired.code)
    assert submit_repo(database, RepoRef("owner/model"), quota, b"sealed").id > job.id
