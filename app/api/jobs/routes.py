"""Routes: jobs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, status

from app.api import pagination
from app.api.auth.submitter import QuotaDep
from app.api.auth.viewer import ViewerDep
from app.api.jobs import detail_schemas as job_detail_schemas
from app.api.jobs import schemas
from app.api.limits import no_query
from app.api.problems import problems
from app.api.schemas import Id
from app.api.services.services import ServicesDep
from catalog.errors import (
    InvalidCursor,
    JobNotFound,
    JobOver,
    NotRetriable,
    Quarantined,
    TokenRequired,
    TooManyJobs,
    WeakKey,
)
from catalog.jobs import control as job_control
from catalog.jobs import service as job_service

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.get("", responses=problems(InvalidCursor, WeakKey))
def page(query: Annotated[schemas.JobsQuery, Query()], services: ServicesDep, viewer: ViewerDep) -> schemas.Jobs:
    """Jobs, the newest first."""
    before = pagination.decode(query.cursor)
    found = job_service.page(services.database, state=query.state, before=before, limit=query.limit, viewer=viewer)
    more = pagination.next_cursor(found, query.limit, lambda job: job.id)
    return schemas.Jobs(jobs=[schemas.Job.of(job) for job in found], next_cursor=more)


@router.get("/{job_id}", dependencies=[no_query], responses=problems(JobNotFound, WeakKey))
def get(job_id: Id, services: ServicesDep, viewer: ViewerDep) -> job_detail_schemas.JobDetail:
    """A job: its state, its progress, the error if it failed, and how each attempt at it ended."""
    return job_detail_schemas.JobDetail.with_history(job_service.get(services.database, job_id, viewer))


@router.post("/{job_id}/cancel", dependencies=[no_query], responses=problems(JobNotFound, JobOver, WeakKey))
def cancel(job_id: Id, services: ServicesDep, viewer: ViewerDep) -> schemas.Job:
    """End a job, whether it waits or runs: nothing of it is stored. One that was cancelled before stays so."""
    return schemas.Job.of(job_control.cancel(services.database, job_id, viewer))


@router.post(
    "/{job_id}/retry",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[no_query],
    responses=problems(JobNotFound, NotRetriable, Quarantined, TokenRequired, TooManyJobs, WeakKey),
)
def retry(job_id: Id, services: ServicesDep, quota: QuotaDep, viewer: ViewerDep) -> schemas.Job:
    """Queue a failed or cancelled job again. Where the same is being done already, that job is given. One that came
    with a token is to be submitted again: its token was not kept.
    """
    return schemas.Job.of(job_control.retry(services.database, job_id, quota, viewer))
