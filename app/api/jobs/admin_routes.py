"""Routes for admins: queues, workers, and retries of quarantined jobs or in bulk."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, status

from app.api.jobs import detail_schemas as job_detail_schemas
from app.api.jobs import schemas
from app.api.limits import no_query
from app.api.problems import problems
from app.api.schemas import Id
from app.api.services.services import ServicesDep
from app.api.settings import SettingsDep
from catalog.auth.viewer import ADMIN
from catalog.errors import BodyTooLarge, HubTokenRequired, JobNotFound, NotRetriable
from catalog.jobs import control as job_control
from catalog.jobs import service as job_service

router = APIRouter(prefix="/v1/admin", tags=["admin"], dependencies=[no_query])
QueueName = Annotated[
    Literal["encode", "maintenance"], Path(description="`encode`: jobs. `maintenance`: indexes, clusters, maps.")
]


@router.get("/queues", responses=problems())
def list_queues(services: ServicesDep) -> job_detail_schemas.Queues:
    """List the queues: whether they are paused, and how many jobs are queued and running."""
    reports = job_service.list_queues(services.database)
    return job_detail_schemas.Queues(queues=[job_detail_schemas.Queue.from_report(report) for report in reports])


@router.post("/queues/{name}/pause", responses=problems())
def pause_queue(name: QueueName, services: ServicesDep) -> job_detail_schemas.Queue:
    """Pause a queue. No more jobs are claimed; once the running ones have ended, the queue is `drained`."""
    return job_detail_schemas.Queue.from_report(job_control.pause(services.database, name))


@router.post("/queues/{name}/resume", responses=problems())
def resume_queue(name: QueueName, services: ServicesDep) -> job_detail_schemas.Queue:
    """Resume a paused queue."""
    return job_detail_schemas.Queue.from_report(job_control.resume(services.database, name))


@router.get("/workers", responses=problems())
def list_workers(services: ServicesDep, settings: SettingsDep) -> job_detail_schemas.WorkerDetails:
    """List the live workers: device, bases in memory, memory, current activity and jobs."""
    workers, running = job_service.list_workers(services.database, settings.heartbeat_timeout)
    return job_detail_schemas.WorkerDetails(
        workers=[job_detail_schemas.WorkerDetail.from_row(worker, running) for worker in workers]
    )


@router.post(
    "/jobs/retry",
    status_code=status.HTTP_202_ACCEPTED,
    responses=problems(BodyTooLarge),
)
def retry_failed_jobs(request: job_detail_schemas.RetryRequest, services: ServicesDep) -> job_detail_schemas.Retried:
    """Retry all jobs that failed with an error code, except those superseded by a later job for the same model and
    revision.
    """
    return job_detail_schemas.Retried(retried=job_control.retry_failed(services.database, request.code))


@router.post(
    "/jobs/{job_id}/retry",
    status_code=status.HTTP_202_ACCEPTED,
    responses=problems(JobNotFound, NotRetriable, HubTokenRequired),
)
def retry_any_job(job_id: Id, services: ServicesDep) -> schemas.Job:
    """Retry a failed, cancelled or quarantined job."""
    return schemas.Job.from_row(job_control.retry(services.database, job_id, by_admin=True), ADMIN)
