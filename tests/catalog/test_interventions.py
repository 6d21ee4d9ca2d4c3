from __future__ import annotations

import pytest
from sqlalchemy import text, update

from catalog import interventions
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
from catalog.quotas import Quota
from catalog.refs import RepoRef
from catalog.repository import attempts, jobs, models
from catalog.submissions import submit_repo
from catalog.tables import Job, JobState
from tests.catalog import entries


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

    assert interventions.cancel(database, job_id).state == JobState.CANCELLED

    with database.transaction() as session:
        assert attempts.advance(session, [job_id], worker, JobState.ENCODING, 0.6) == []
        assert not attempts.finish(session, job_id, worker, "sha")
        assert not attempts.retry(session, job_id, worker, HubUnavailable("away"), 1)
        cancelled = jobs.get(session, job_id)
    assert (cancelled.state, cancelled.finished_at is not None) == (JobState.CANCELLED, True)


def test_the_history_says_at_what_a_job_was_cancelled(database: Database, worker: int):
    job_id = put_running(database, worker, JobState.ENCODING)
    [attempt] = interventions.cancel(database, job_id).history
    assert (attempt["outcome"], attempt["state"], attempt["worker_id"]) == ("cancelled", "encoding", worker)


def test_cancelling_twice_is_cancelling_once(database: Database):
    job_id = entries.put_job(database).id
    first = interventions.cancel(database, job_id)
    assert interventions.cancel(database, job_id).finished_at == first.finished_at


def test_what_is_over_cannot_be_cancelled(database: Database, worker: int):
    with pytest.raises(JobOver):
        interventions.cancel(database, put_failed(database, worker))


def test_what_is_not_there_can_neither_be_cancelled_nor_retried(database: Database):
    for act in (interventions.cancel, interventions.retry):
        with pytest.raises(JobNotFound):
            act(database, 999)


def test_a_failed_job_is_queued_as_if_it_were_new_and_keeps_its_history(database: Database, worker: int):
    job_id = put_failed(database, worker)

    again = interventions.retry(database, job_id)

    assert (again.id, again.state, again.attempts, again.error_code) == (job_id, JobState.QUEUED, 0, None)
    assert [each["code"] for each in again.history] == ["hub_unavailable"]
    assert entries.claim(database, job_id, worker) == [job_id]


def test_a_cancelled_job_may_be_retried(database: Database):
    job_id = entries.put_job(database).id
    interventions.cancel(database, job_id)
    assert interventions.retry(database, job_id).state == JobState.QUEUED


def test_what_is_done_is_not_retried(database: Database, worker: int):
    job_id = put_running(database, worker, JobState.FETCHING)
    with database.transaction() as session:
        attempts.finish(session, job_id, worker, "sha")
    with pytest.raises(NotRetriable):
        interventions.retry(database, job_id)


def test_a_retry_gives_the_job_that_does_the_same_already(database: Database, worker: int):
    failed, active = put_failed(database, worker), entries.put_job(database).id
    assert interventions.retry(database, failed).id == active


def test_a_retry_counts_against_the_quota_of_whoever_asks(database: Database, worker: int):
    job_id = put_failed(database, worker)
    quota = Quota.of_key("key", 1)
    submit_repo(database, RepoRef("owner/other"), quota)
    with pytest.raises(TooManyJobs):
        interventions.retry(database, job_id, quota)
    with database.transaction() as session:
        assert jobs.get(session, job_id).state == JobState.FAILED


def test_jobs_are_retried_in_bulk_by_their_error(database: Database, worker: int):
    away = [put_failed(database, worker, f"owner/away-{number}") for number in range(3)]
    broken = put_failed(database, worker, "owner/broken", CorruptWeights)

    assert interventions.retry_failed(database, "hub_unavailable") == 3

    with database.transaction() as session:
        assert {jobs.get(session, job_id).state for job_id in away} == {JobState.QUEUED}
        assert jobs.get(session, broken).state == JobState.FAILED


def test_a_bulk_is_retried_piece_by_piece(database: Database, worker: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(interventions, "BULK", 2)
    for number in range(5):
        put_failed(database, worker, f"owner/{number}")
    assert interventions.retry_failed(database, "hub_unavailable") == 5


def test_of_several_failures_of_one_model_the_last_alone_is_retried(database: Database, worker: int):
    first, second = put_failed(database, worker), put_failed(database, worker)
    assert interventions.retry_failed(database, "hub_unavailable") == 1
    with database.transaction() as session:
        assert [jobs.get(session, job_id).state for job_id in (first, second)] == [JobState.FAILED, JobState.QUEUED]


def test_a_failure_beside_which_a_retry_runs_is_left(database: Database, worker: int):
    first, _ = put_failed(database, worker), put_failed(database, worker)
    interventions.retry(database, first)
    assert interventions.retry_failed(database, "hub_unavailable") == 0


def test_a_quarantined_job_is_retried_by_an_admin_alone(database: Database, worker: int):
    job_id = put_quarantined(database, worker)
    with pytest.raises(Quarantined):
        interventions.retry(database, job_id)

    again = interventions.retry(database, job_id, by_admin=True)

    assert (again.state, again.deaths) == (JobState.QUEUED, 0)


def test_submitting_a_quarantined_model_again_gives_the_job_that_says_so(database: Database, worker: int):
    job_id = put_quarantined(database, worker)
    for revision in (None, "main"):
        given = submit_repo(database, RepoRef("owner/model", revision))
        assert (given.id, given.error_code) == (job_id, "quarantined")


def test_a_queue_is_drained_when_nothing_of_it_runs_any_more(database: Database, worker: int):
    job_id = put_running(database, worker, JobState.FETCHING)
    assert not interventions.pause(database, "encode").drained
    interventions.cancel(database, job_id)
    assert interventions.queue(database, "encode").drained
    assert not interventions.resume(database, "encode").drained


def test_an_admin_lets_a_job_that_came_with_a_token_out_of_quarantine_to_be_submitted_again(database: Database):
    job = entries.put_private_job(database, "owner/model", "me")
    quota = Quota("me", 10)
    with database.transaction() as session:
        killed = {"state": JobState.FAILED, "error_code": Quarantined.code, "token": None}
        session.execute(update(Job).where(Job.id == job.id).values(**killed))
    assert submit_repo(database, RepoRef("owner/model"), quota, b"sealed").id == job.id
    others = submit_repo(database, RepoRef("owner/model"), Quota("you", 10), b"sealed")
    assert others.id != job.id

    let_go = interventions.retry(database, job.id, by_admin=True)

    assert (let_go.state, let_go.error_code) == (JobState.FAILED, TokenRequired.code)
    assert submit_repo(database, RepoRef("owner/model"), quota, b"sealed").id > job.id
