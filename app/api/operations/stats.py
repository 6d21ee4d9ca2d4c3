"""The route of the statistics of the catalog."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.auth.caller import ViewerDep
from app.api.limits import no_query
from app.api.operations import schemas
from app.api.problems import problems
from app.api.services.services import ServicesDep

router = APIRouter(prefix="/v1/stats", tags=["stats"])


@router.get("", dependencies=[no_query], responses=problems())
def get_stats(services: ServicesDep, viewer: ViewerDep) -> schemas.Stats:
    """Count models and jobs by state and bases by the path on which they run, and list the live workers. Only admins
    see the hosts and process ids of the workers. In a large catalog the counts are up to ten seconds old.
    """
    return schemas.Stats.from_counts(services.stats.get(), viewer)
