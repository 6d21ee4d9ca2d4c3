"""The route of the statistics of the catalog."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.auth.caller import ViewerDep
from app.api.limits import no_query
from app.api.operations import schemas
from app.api.problems import problems
from app.api.services.services import ServicesDep
from app.api.settings import SettingsDep
from catalog.jobs import service as job_service

router = APIRouter(prefix="/v1/stats", tags=["stats"])


@router.get("", dependencies=[no_query], responses=problems())
def get_stats(services: ServicesDep, settings: SettingsDep, viewer: ViewerDep) -> schemas.Stats:
    """Count models and jobs by state and bases by the path on which they run, and list the live workers. Only admins
    see the hosts and process ids of the workers.
    """
    return schemas.Stats.from_counts(job_service.get_stats(services.database, settings.heartbeat_timeout), viewer)
