"""What people do to jobs and queues after the submission: cancel, retry, pause, resume."""

from __future__ import annotations

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from catalog.auth.viewer import EVERYTHING, PUBLIC, Viewer
from catalog.database import Database
from catalog.errors import JobOver, NotRetriable, Quarantined, TokenRequired
from catalog.jobs.quotas import Quota
from catalog.jobs.repository import claims, jobs, queues
from catalog.jobs.repository.queues import QueueReport
from catalog.queue import ENCODE_QUEUE, ring_after_commit
from catalog.tables import ACTIVE, Job, JobState

SUBMIT_AGAIN = "It came with a token of the Hub, which is not kept: submit the model again, with the token."
BULK = 1_000  # jobs that are queued again in one transaction


def cancel(database: Database, job_id: int, viewer: Viewer = PUBLIC) -> Job:
    """End a job in whatever state it is; nothing of it is stored from here on. One that was cancelled is given again.

    Raises `JobNotFound`, and `JobOver` when it was done or failed.
    """
    with database.transaction() as session:
        jobs.get(session, job_id, viewer)
        cancelled = jobs.cancel(session, job_id)
        job = jobs.get(session, job_id, viewer)
    if not cancelled and job.state != JobState.CANCELLED:
        raise JobOver(f"Job {job_id} is {job.state}: there is nothing left to cancel.")
    return job


def retry(
    database: Database, job_id: int, quota: Quota | None = None, viewer: Viewer = PUBLIC, *, by_admin: bool = False
) -> Job:
    """Queue a failed or cancelled job again as if it were new; where the same is asked for by an active one, that.

    Raises `JobNotFound`, `NotRetriable` when it is done, `Quarantined` unless an admin asks, `TokenRequired` when it
    came with a token (an admin lets such a one out of quarantine), `TooManyJobs`.
    """
    while True:
        try:
            with database.transaction() as session:
                return _retry(session, job_id, quota, EVERYTHING if by_admin else viewer, by_admin)
        except IntegrityError:  # the same was submitted in this moment; then its job is active now
            continue


def retry_failed(database: Database, code: str) -> int:
    """Queue all failed jobs with that error again, as far as no later job asked for the same. Returns how many."""
    total = 0
    while True:
        try:
            with database.transaction() as session:
                queued = jobs.again_by_code(session, code, BULK)
                for job_id in queued[:1]:  # one bell is enough for a worker to go through all that waits
                    ring_after_commit(session, job_id)
        except IntegrityError:
            continue
        total += len(queued)
        if len(queued) < BULK:
            return total


def pause(database: Database, name: str) -> QueueReport:
    """Have nothing more claimed of a queue. What runs goes on to its end; the queue is drained when nothing does."""
    with database.transaction() as session:
        queues.pause(session, name)
    return queue(database, name)


def resume(database: Database, name: str) -> QueueReport:
    with database.transaction() as session:
        queues.resume(session, name)
        if name == ENCODE_QUEUE and (waiting := claims.oldest_due(session)) is not None:
            ring_after_commit(session, waiting)
    return queue(database, name)


def queue(database: Database, name: str) -> QueueReport:
    with database.transaction() as session:
        return next(each for each in queues.report(session) if each.name == name)


def _retry(session: Session, job_id: int, quota: Quota | None, viewer: Viewer, by_admin: bool) -> Job:
    job = jobs.get(session, job_id, viewer)
    if job.token_at is not None:
        return _retry_private(session, job, viewer, by_admin)
    dangerous = jobs.quarantined(session, job.model_id, job.viewer)
    if dangerous is not None and not by_admin:
        raise Quarantined(f"Job {dangerous.id} of {job.model.repo_id} killed workers: only an admin may run it again.")
    if (running := jobs.active(session, job.model_id, job.requested_revision, job.reindex_id)) is not None:
        return running
    if not jobs.again(session, job_id, quota.submitter if quota else None):
        if (task_id := jobs.task_without_examples(session, job_id)) is not None:
            raise NotRetriable(f"The examples of task {task_id} have been forgotten: ask again with `POST /v1/tasks`.")
        over = f"of reindex {job.reindex_id}, which is over" if job.reindex_id else job.state
        raise NotRetriable(f"Job {job_id} is {over}: there is nothing to retry.")
    if quota is not None:
        quota.check(session)
    ring_after_commit(session, job_id)
    return jobs.get(session, job_id, viewer)


def _retry_private(session: Session, job: Job, viewer: Viewer, by_admin: bool) -> Job:
    if by_admin and jobs.release_from_quarantine(session, job.id, SUBMIT_AGAIN):
        return jobs.get(session, job.id, viewer)
    if job.state in ACTIVE:
        return job
    if job.state == JobState.DONE:
        raise NotRetriable(f"Job {job.id} is {job.state}: there is nothing to retry.")
    raise TokenRequired(SUBMIT_AGAIN)
