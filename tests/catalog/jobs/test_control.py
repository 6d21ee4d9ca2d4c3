from __future__ import annotations

import pytest
from sqlalchemy import text, update

from catalog.database import Database
from catalog.errors import (
    CorruptWeights,
    HubTokenRequired,
    HubUnavailable,
    JobFinished,
    JobNotFound,
    NotRetriable,
    Quarantined,
    TooManyJobs,
)
from catalog.jobs import control as job_control
from catalog.jobs.quotas import Quota
from catalog.jobs.repository import attempts, jobs
from catalog.jobs.submissions import submit_repo
from catalog.models.repo_ref import RepoRef
from catalog.models.repository import models
from catalog.quarantine import repository as quarantine
from catalog.quarantine.repository import QuarantineKey
from catalog.tables import Job, JobState
from tests.support import catalog as entries
from tests.support.quarantine import put_quarantine


@pytest.fixture
def worker(database: Database) -> int:
    return entries.put_worker(database)


def put_running(database: Database, worker: int, state: JobState, name: str = "owner/model") -> int:
    job_id = entries.put_job(database, name).id
    if state != JobState.QUEUED:
        entries.claim(database, job_id, worker)
    if state == JobState.ENCODING:
        with database.transaction() as session:
            attempts.update_progress(session, [job_id], worker, state, 0.5)
    return job_id


def put_failed(database: Database, worker: int, name: str = "owner/model", error: type = HubUnavailable) -> int:
    job_id = put_running(database, worker, JobState.FETCHING, name)
    with database.transaction() as session:
        attempts.fail(session, job_id, worker, error("It went wrong."))
    return job_id


def put_quarantined(database: Database, worker: int) -> int:
    job_id = put_failed(database, worker, error=Quarantined)
    with database.transaction() as session:
        session.execute(text("UPDATE jobs SET worker_deaths = 2"))
        put_quarantine(session, "owner/model")
        models.mark_failed(session, [jobs.get(session, job_id).model_id])
    return job_id


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.FETCHING, JobState.ENCODING])
def test_cancelled_job_accepts_no_progress_and_no_result(database: Database, worker: int, state: JobState):
    job_id = put_running(database, worker, state)

    assert job_control.cancel(database, job_id).state == JobState.CANCELLED

    with database.transaction() as session:
        assert attempts.update_progress(session, [job_id], worker, JobState.ENCODING, 0.6) == []
        assert not attempts.finish(session, job_id, worker, "sha")
        assert not attempts.retry(session, job_id, worker, HubUnavailable("away"), 1)
        cancelled = jobs.get(session, job_id)
    assert (cancelled.state, cancelled.finished_at is not None) == (JobState.CANCELLED, True)


def test_history_records_the_state_at_cancellation(database: Database, worker: int):
    job_id = put_running(database, worker, JobState.ENCODING)
    [attempt] = job_control.cancel(database, job_id).history
    assert (attempt["outcome"], attempt["state"], attempt["worker_id"]) == ("cancelled", "encoding", worker)


def test_cancelling_a_cancelled_job_changes_nothing(database: Database):
    job_id = entries.put_job(database).id
    first = job_control.cancel(database, job_id)
    assert job_control.cancel(database, job_id).finished_at == first.finished_at


def test_failed_job_cannot_be_cancelled(database: Database, worker: int):
    with pytest.raises(JobFinished):
        job_control.cancel(database, put_failed(database, worker))


def test_unknown_job_can_neither_be_cancelled_nor_retried(database: Database):
    for action in (job_control.cancel, job_control.retry):
        with pytest.raises(JobNotFound):
            action(database, 999)


def test_retried_job_is_reset_and_keeps_its_history(database: Database, worker: int):
    job_id = put_failed(database, worker)

    retried = job_control.retry(database, job_id)

    assert (retried.id, retried.state, retried.attempts, retried.error_code) == (job_id, JobState.QUEUED, 0, None)
    assert [attempt["code"] for attempt in retried.history] == ["hub_unavailable"]
    assert entries.claim(database, job_id, worker) == [job_id]


def test_cancelled_job_can_be_retried(database: Database):
    job_id = entries.put_job(database).id
    job_control.cancel(database, job_id)
    assert job_control.retry(database, job_id).state == JobState.QUEUED


def test_done_job_cannot_be_retried(database: Database, worker: int):
    job_id = put_running(database, worker, JobState.FETCHING)
    with database.transaction() as session:
        attempts.finish(session, job_id, worker, "sha")
    with pytest.raises(NotRetriable):
        job_control.retry(database, job_id)


def test_retry_returns_the_active_job_of_the_same_model(database: Database, worker: int):
    failed, active = put_failed(database, worker), entries.put_job(database).id
    assert job_control.retry(database, failed).id == active


def test_retried_job_keeps_its_base_beside_an_active_job_without_one(database: Database):
    job_id = entries.put_job(database, base="o/base").id
    job_control.cancel(database, job_id)
    entries.put_job(database)
    retried = job_control.retry(database, job_id)
    assert (retried.id, retried.requested_base, retried.state) == (job_id, "o/base", JobState.QUEUED)


def test_retry_returns_the_active_job_of_the_same_base(database: Database):
    cancelled = entries.put_job(database, base="o/base").id
    job_control.cancel(database, cancelled)
    active = entries.put_job(database, base="o/base").id
    assert job_control.retry(database, cancelled).id == active


def test_retry_counts_against_the_quota_of_its_submitter(database: Database, worker: int):
    job_id = put_failed(database, worker)
    quota = Quota("key", 1)
    submit_repo(database, RepoRef("owner/other"), quota)
    with pytest.raises(TooManyJobs):
        job_control.retry(database, job_id, quota)
    with database.transaction() as session:
        assert jobs.get(session, job_id).state == JobState.FAILED


def test_failed_jobs_are_retried_by_error_code(database: Database, worker: int):
    away = [put_failed(database, worker, f"owner/away-{number}") for number in range(3)]
    broken = put_failed(database, worker, "owner/broken", CorruptWeights)

    assert job_control.retry_failed(database, "hub_unavailable") == 3

    with database.transaction() as session:
        assert {jobs.get(session, job_id).state for job_id in away} == {JobState.QUEUED}
        assert jobs.get(session, broken).state == JobState.FAILED


def test_bulk_retry_takes_several_transactions(database: Database, worker: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(job_control, "MAX_RETRIED_PER_TRANSACTION", 2)
    for number in range(5):
        put_failed(database, worker, f"owner/{number}")
    assert job_control.retry_failed(database, "hub_unavailable") == 5


def test_bulk_retry_takes_only_the_newest_failure_of_a_model(database: Database, worker: int):
    first, second = put_failed(database, worker), put_failed(database, worker)
    assert job_control.retry_failed(database, "hub_unavailable") == 1
    with database.transaction() as session:
        assert [jobs.get(session, job_id).state for job_id in (first, second)] == [JobState.FAILED, JobState.QUEUED]


def test_bulk_retry_skips_models_with_an_active_job(database: Database, worker: int):
    first, _ = put_failed(database, worker), put_failed(database, worker)
    job_control.retry(database, first)
    assert job_control.retry_failed(database, "hub_unavailable") == 0


def test_only_an_admin_can_retry_a_quarantined_job(database: Database, worker: int):
    job_id = put_quarantined(database, worker)
    with pytest.raises(Quarantined):
        job_control.retry(database, job_id)

    retried = job_control.retry(database, job_id, by_admin=True)

    assert (retried.state, retried.worker_deaths) == (JobState.QUEUED, 0)


def test_retry_of_all_quarantined_jobs_lifts_their_quarantine(database: Database, worker: int):
    job_id = put_quarantined(database, worker)
    assert job_control.retry_failed(database, "quarantined") == 1
    with database.transaction() as session:
        assert jobs.get(session, job_id).state == JobState.QUEUED
        assert quarantine.find(session, QuarantineKey.of_repo("owner/model", None)) is None


def test_submission_of_a_quarantined_model_returns_the_quarantined_job(database: Database, worker: int):
    job_id = put_quarantined(database, worker)
    for revision in (None, "main"):
        job = submit_repo(database, RepoRef("owner/model", revision))
        assert (job.id, job.error_code) == (job_id, "quarantined")


def test_paused_queue_is_drained_once_nothing_runs(database: Database, worker: int):
    job_id = put_running(database, worker, JobState.FETCHING)
    assert not job_control.pause(database, "encode").drained
    job_control.cancel(database, job_id)
    assert job_control.get_queue(database, "encode").drained
    assert not job_control.resume(database, "encode").drained


def test_quarantined_job_with_a_token_can_be_submitted_again_after_release(database: Database):
    job = entries.put_private_job(database, "owner/model", "me")
    quota = Quota("me", 10)
    with database.transaction() as session:
        values = {"state": JobState.FAILED, "error_code": Quarantined.code, "token": None}
        session.execute(update(Job).where(Job.id == job.id).values(**values))
        put_quarantine(session, "owner/model")
    assert submit_repo(database, RepoRef("owner/model"), quota, b"sealed").id == job.id
    other = submit_repo(database, RepoRef("owner/model"), Quota("you", 10), b"sealed")
    assert other.id != job.id

    released = job_control.retry(database, job.id, by_admin=True)

    assert (released.state, released.error_code) == (JobState.FAILED, HubTokenRequired.code)
    assert submit_repo(database, RepoRef("owner/model"), quota, b"sealed").id > job.id
