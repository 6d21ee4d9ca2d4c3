"""Routes for administrators: queues, workers, and jobs in bulk."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, status

from app.api.auth.admin import FOR_ADMINS, admin
from app.api.jobs import detail_schemas as job_detail_schemas
from app.api.jobs import schemas
from app.api.limits import no_query
from app.api.problems import problems
from app.api.schemas import Id
from app.api.services.services import ServicesDep
from app.api.settings import SettingsDep
from catalog.errors import BodyTooLarge, JobNotFound, NotRetriable, TokenRequired
from catalog.jobs import control as job_control
from catalog.jobs import service as job_service

router = APIRouter(prefix="/v1/admin", tags=["admin"], dependencies=[no_query, admin])
QueueName = Annotated[
    Literal["encode", "upkeep"], Path(description="`encode`: jobs. `upkeep`: indexes, clusters, maps.")
]


@router.get("/queues", responses=problems(*FOR_ADMINS))
def list_queues(services: ServicesDep) -> job_detail_schemas.Queues:
    """The queues: which are paused, and what waits and runs."""
    reports = job_service.queue_reports(services.database)
    return job_detail_schemas.Queues(queues=[job_detail_schemas.Queue.of(report) for report in reports])


@router.post("/queues/{name}/pause", responses=problems(*FOR_ADMINS))
def pause(name: QueueName, services: ServicesDep) -> job_detail_schemas.Queue:
    """Have nothing more taken from a queue. What runs goes on to its end; then the queue is `drained`."""
    return job_detail_schemas.Queue.of(job_control.pause(services.database, name))


@router.post("/queues/{name}/resume", responses=problems(*FOR_ADMINS))
def resume(name: QueueName, services: ServicesDep) -> job_detail_schemas.Queue:
    """Have a paused queue worked on again."""
    return job_detail_schemas.Queue.of(job_control.resume(services.database, name))


@router.get("/workers", responses=problems(*FOR_ADMINS))
def list_workers(services: ServicesDep, settings: SettingsDep) -> job_detail_schemas.WorkerDetails:
    """The workers whose heart beats: device, bases in memory, memory, and what each does now."""
    alive, running = job_service.workers_alive(services.database, settings.heartbeat_limit)
    return job_detail_schemas.WorkerDetails(
        workers=[job_detail_schemas.WorkerDetail.with_jobs(worker, running) for worker in alive]
    )


@router.post(
    "/jobs/retry",
    status_code=status.HTTP_202_ACCEPTED,
    responses=problems(BodyTooLarge, *FOR_ADMINS),
)
def retry_by_code(request: job_detail_schemas.RetryRequest, services: ServicesDep) -> job_detail_schemas.Retried:
    """Queue all jobs again that failed with an error; not those whose model and revision were asked for since."""
    return job_detail_schemas.Retried(retried=job_control.retry_failed(services.database, request.code))


@router.post(
    "/jobs/{job_id}/retry",
    status_code=status.HTTP_202_ACCEPTED,
    responses=problems(JobNotFound, NotRetriable, TokenRequired, *FOR_ADMINS),
)
def retry(job_id: Id, services: ServicesDep) -> schemas.Job:
    """Queue a failed, cancelled or quarantined job again."""
    return schemas.Job.of(job_control.retry(services.database, job_id, by_admin=True))
