"""Routes for administrators: queues, workers, and jobs in bulk."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, status

from app.api import job_schemas, schemas
from app.api.admin import admin
from app.api.limits import no_query
from app.api.problems import problems
from app.api.services import ServicesDep
from catalog import interventions
from catalog.errors import AdminKeyRequired, AdminOnly, BodyTooLarge, JobNotFound, NotRetriable, TokenRequired
from catalog.repository import jobs, queues, workers
from catalog.settings import settings

router = APIRouter(prefix="/v1/admin", tags=["admin"], dependencies=[no_query, admin])
QueueName = Annotated[
    Literal["encode", "upkeep"], Path(description="`encode`: jobs. `upkeep`: indexes, clusters, maps.")
]


@router.get("/queues", responses=problems(AdminOnly, AdminKeyRequired))
def list_queues(services: ServicesDep) -> job_schemas.Queues:
    """The queues: which are paused, and what waits and runs."""
    with services.database.transaction() as session:
        return job_schemas.Queues(queues=[job_schemas.Queue.of(each) for each in queues.report(session)])


@router.post("/queues/{name}/pause", responses=problems(AdminOnly, AdminKeyRequired))
def pause(name: QueueName, services: ServicesDep) -> job_schemas.Queue:
    """Have nothing more taken from a queue. What runs goes on to its end; then the queue is `drained`."""
    return job_schemas.Queue.of(interventions.pause(services.database, name))


@router.post("/queues/{name}/resume", responses=problems(AdminOnly, AdminKeyRequired))
def resume(name: QueueName, services: ServicesDep) -> job_schemas.Queue:
    """Have a paused queue worked on again."""
    return job_schemas.Queue.of(interventions.resume(services.database, name))


@router.get("/workers", responses=problems(AdminOnly, AdminKeyRequired))
def list_workers(services: ServicesDep) -> job_schemas.WorkerDetails:
    """The workers whose heart beats: device, bases in memory, memory, and what each does now."""
    with services.database.transaction() as session:
        alive = workers.alive(session, settings().heartbeat_limit)
        running = jobs.running_of(session, [worker.id for worker in alive])
    return job_schemas.WorkerDetails(workers=[job_schemas.WorkerDetail.with_jobs(worker, running) for worker in alive])


@router.post(
    "/jobs/retry",
    status_code=status.HTTP_202_ACCEPTED,
    responses=problems(AdminOnly, AdminKeyRequired, BodyTooLarge),
)
def retry_by_code(request: job_schemas.RetryRequest, services: ServicesDep) -> job_schemas.Retried:
    """Queue all jobs again that failed with an error; not those whose model and revision were asked for since."""
    return job_schemas.Retried(retried=interventions.retry_failed(services.database, request.code))


@router.post(
    "/jobs/{job_id}/retry",
    status_code=status.HTTP_202_ACCEPTED,
    responses=problems(AdminOnly, AdminKeyRequired, JobNotFound, NotRetriable, TokenRequired),
)
def retry(job_id: Annotated[int, Path(ge=1, lt=2**63)], services: ServicesDep) -> schemas.Job:
    """Queue a failed, cancelled or quarantined job again."""
    return schemas.Job.of(interventions.retry(services.database, job_id, by_admin=True))
