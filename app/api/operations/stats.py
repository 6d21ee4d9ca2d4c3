"""Routes: how much there is, and who works on it."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.jobs import schemas as job_schemas
from app.api.limits import no_query
from app.api.operations import schemas
from app.api.problems import problems
from app.api.services.services import ServicesDep
from catalog.jobs.repository import jobs, workers
from catalog.models.repository import models
from catalog.settings import settings

router = APIRouter(prefix="/v1/stats", tags=["stats"])


@router.get("", dependencies=[no_query], responses=problems())
def stats(services: ServicesDep) -> schemas.Stats:
    """Models and jobs by state, and the workers whose heart beats."""
    with services.database.transaction() as session:
        alive = workers.alive(session, settings().heartbeat_limit)
        return schemas.Stats(
            models=models.counts(session),
            jobs=jobs.counts(session),
            workers=[job_schemas.Worker.model_validate(worker, from_attributes=True) for worker in alive],
        )
