"""Control of submitted jobs and of queues: cancel, retry, pause, resume."""

from __future__ import annotations

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from catalog.auth.viewer import ADMIN, Viewer
from catalog.database import Database
from catalog.errors import HubTokenRequired, JobFinished, NotRetriable, NotYours, Quarantined
from catalog.jobs.quotas import Quota
from catalog.jobs.repository import claims, jobs, queues
from catalog.jobs.repository.queues import QueueReport
from catalog.quarantine import repository as quarantine
from catalog.quarantine.repository import QuarantineKey
from catalog.queue import ENCODE_QUEUE, enqueue_after_commit
from catalog.tables import ACTIVE, Job, JobState

SUBMIT_AGAIN = "The job used a Hub token, which is not stored. Submit the model again with the token."
MAX_RETRIED_PER_TRANSACTION = 1_000  # jobs


def cancel(database: Database, job_id: int, viewer: Viewer = ADMIN) -> Job:
    """Cancel a queued or running job, and return it; from then on no worker can store a result for it. A job that is
    already cancelled is returned unchanged.

    Raises `JobNotFound`, `NotYours` unless the viewer submitted the job or is an admin, and `JobFinished` if the job is
    done or failed.
    """
    with database.transaction() as session:
        _check_owner(jobs.get(session, job_id, viewer), viewer)
        cancelled = jobs.cancel(session, job_id)
        job = jobs.get(session, job_id, viewer)
    if not cancelled and job.state != JobState.CANCELLED:
        raise JobFinished(f"Job {job_id} is already {job.state} and cannot be cancelled.")
    return job


def retry(
    database: Database, job_id: int, quota: Quota | None = None, viewer: Viewer = ADMIN, *, by_admin: bool = False
) -> Job:
    """Queue a failed or cancelled job again as if it were new, with the base that it names. If another job for the same
    model, revision and base is active, that job is returned instead.

    Raises `JobNotFound`, `NotYours` unless the viewer submitted the job or is an admin, `NotRetriable` if the job is
    done, `Quarantined` unless `by_admin`, `HubTokenRequired` if the job came with a Hub token (an admin's retry
    releases such a job from quarantine), and `TooManyJobs`.
    """
    while True:
        try:
            with database.transaction() as session:
                return _retry(session, job_id, quota, ADMIN if by_admin else viewer, by_admin)
        except IntegrityError:  # the same model was submitted concurrently; the next try returns that job
            continue


def retry_failed(database: Database, code: str) -> int:
    """Queue all failed jobs with that error code again, except those superseded by a later job for the same model and
    revision. A quarantine of their repos is lifted. Returns how many were queued.
    """
    total = 0
    while True:
        try:
            with database.transaction() as session:
                job_ids = jobs.requeue_by_error(session, code, MAX_RETRIED_PER_TRANSACTION)
                for job_id in job_ids if code == Quarantined.code else ():
                    quarantine.lift(session, QuarantineKey.of_job(jobs.get(session, job_id, ADMIN)))
                for job_id in job_ids[:1]:  # one notification is enough: a worker continues until the queue is empty
                    enqueue_after_commit(session, job_id)
        except IntegrityError:
            continue
        total += len(job_ids)
        if len(job_ids) < MAX_RETRIED_PER_TRANSACTION:
            return total


def pause(database: Database, name: str) -> QueueReport:
    """Stop claims from a queue. Running jobs continue; once they have ended, the queue is drained."""
    with database.transaction() as session:
        queues.pause(session, name)
    return get_queue(database, name)


def resume(database: Database, name: str) -> QueueReport:
    """Resume a paused queue, and send a notification if a job is due."""
    with database.transaction() as session:
        queues.resume(session, name)
        if name == ENCODE_QUEUE and (job_id := claims.find_oldest_due(session)) is not None:
            enqueue_after_commit(session, job_id)
    return get_queue(database, name)


def get_queue(database: Database, name: str) -> QueueReport:
    with database.transaction() as session:
        return next(report for report in queues.list_reports(session) if report.name == name)


def _retry(session: Session, job_id: int, quota: Quota | None, viewer: Viewer, by_admin: bool) -> Job:
    job = jobs.get(session, job_id, viewer)
    _check_owner(job, viewer)
    if job.token_at is not None:
        return _retry_private(session, job, viewer, by_admin)
    if by_admin:
        quarantine.lift(session, QuarantineKey.of_job(job))
    else:
        quarantine.check(session, QuarantineKey.of_job(job), job.model.repo_id)
    if (
        active := jobs.find_active(session, job.model_id, job.requested_revision, job.reindex_id, job.requested_base)
    ) is not None:
        return active
    if not jobs.requeue(session, job_id, quota.submitter if quota else None):
        if (task_id := jobs.find_task_without_examples(session, job_id)) is not None:
            raise NotRetriable(f"The examples of task {task_id} were deleted. Create a new task with `POST /v1/tasks`.")
        if job.model.removed_at is not None:
            raise NotRetriable(f"{job.model.repo_id} was removed. Submit it again with `POST /v1/models`.")
        reason = f"belongs to reindex {job.reindex_id}, which has ended" if job.reindex_id else f"is {job.state}"
        raise NotRetriable(f"Job {job_id} {reason}: there is nothing to retry.")
    if quota is not None:
        quota.check(session)
    enqueue_after_commit(session, job_id)
    return jobs.get(session, job_id, viewer)


def _check_owner(job: Job, viewer: Viewer) -> None:
    if not viewer.can_change(job.submitter):
        whose = "with another API key" if job.submitter else "by a crawl, a webhook, a reindex or an admin"
        raise NotYours(f"Job {job.id} was submitted {whose}. Ask an admin to change it.")


def _retry_private(session: Session, job: Job, viewer: Viewer, by_admin: bool) -> Job:
    if by_admin and jobs.release_from_quarantine(session, job.id, SUBMIT_AGAIN):
        quarantine.lift(session, QuarantineKey.of_job(job))
        return jobs.get(session, job.id, viewer)
    if job.state in ACTIVE:
        return job
    if job.state == JobState.DONE:
        raise NotRetriable(f"Job {job.id} is {job.state}: there is nothing to retry.")
    raise HubTokenRequired(SUBMIT_AGAIN)
