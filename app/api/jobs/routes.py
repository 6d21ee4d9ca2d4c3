"""Routes of jobs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, status

from app.api import pagination
from app.api.auth.caller import QuotaDep, ViewerDep
from app.api.jobs import detail_schemas as job_detail_schemas
from app.api.jobs import schemas
from app.api.limits import no_query
from app.api.problems import problems
from app.api.schemas import Id
from app.api.services.services import ServicesDep
from catalog.errors import (
    HubTokenRequired,
    InvalidCursor,
    JobFinished,
    JobNotFound,
    NotRetriable,
    NotYours,
    Quarantined,
    TooManyJobs,
)
from catalog.jobs import control as job_control
from catalog.jobs import service as job_service

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.get("", responses=problems(InvalidCursor))
def list_jobs(query: Annotated[schemas.JobsQuery, Query()], services: ServicesDep, viewer: ViewerDep) -> schemas.Jobs:
    """List jobs, newest first."""
    before = pagination.decode(query.cursor)
    jobs = job_service.list_page(services.database, state=query.state, before=before, limit=query.limit, viewer=viewer)
    next_cursor = pagination.next_cursor(jobs, query.limit, lambda job: job.id)
    return schemas.Jobs(jobs=[schemas.Job.from_row(job, viewer) for job in jobs], next_cursor=next_cursor)


@router.get("/{job_id}", dependencies=[no_query], responses=problems(JobNotFound))
def get_job(job_id: Id, services: ServicesDep, viewer: ViewerDep) -> job_detail_schemas.JobDetail:
    """Get a job: its state, progress, error if it failed, and the history of its attempts."""
    return job_detail_schemas.JobDetail.from_row(job_service.get(services.database, job_id, viewer), viewer)


@router.post("/{job_id}/cancel", dependencies=[no_query], responses=problems(JobNotFound, JobFinished, NotYours))
def cancel_job(job_id: Id, services: ServicesDep, viewer: ViewerDep) -> schemas.Job:
    """Cancel a queued or running job; no result of it is stored. A cancelled job is returned unchanged."""
    return schemas.Job.from_row(job_control.cancel(services.database, job_id, viewer), viewer)


@router.post(
    "/{job_id}/retry",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[no_query],
    responses=problems(JobNotFound, NotRetriable, NotYours, Quarantined, HubTokenRequired, TooManyJobs),
)
def retry_job(job_id: Id, services: ServicesDep, quota: QuotaDep, viewer: ViewerDep) -> schemas.Job:
    """Retry a failed or cancelled job. If another job for the same model and revision is active, that job is returned.
    A job that used a Hub token cannot be retried, because the token is not stored: submit the model again.
    """
    return schemas.Job.from_row(job_control.retry(services.database, job_id, quota, viewer), viewer)
