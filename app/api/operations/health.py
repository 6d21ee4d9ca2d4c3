"""Routes of health checks: of the process and of its dependencies.

They run in the event loop and read what a background check has found, so they answer in milliseconds even while all
threads and connections are in use.
"""

from __future__ import annotations

from fastapi import APIRouter, Response, status

from app.api.auth.caller import ViewerDep
from app.api.limits import no_query
from app.api.operations import schemas
from app.api.problems import problems
from app.api.services.readiness import Dependencies
from app.api.services.services import ServicesDep
from catalog.auth.viewer import Viewer
from catalog.errors import HubTokenInvalid

router = APIRouter(tags=["health"])
REQUIRED = ("database", "broker", "index")  # the checks that a process needs to answer requests


@router.get("/healthz", dependencies=[no_query], responses=problems())
async def check_liveness() -> dict[str, str]:
    """Confirm that the process is up."""
    return {"status": "up"}


@router.get(
    "/readyz",
    dependencies=[no_query],
    responses={**problems(), 503: {"model": schemas.Readiness, "description": "A dependency is not ready."}},
)
async def check_readiness(services: ServicesDep, viewer: ViewerDep, response: Response) -> schemas.Readiness:
    """Report the database, the broker, the index, and the Hub token of the workers, as they were a moment ago. The
    process is ready despite an invalid token, because only jobs for repos that are not public need it. Only admins see
    the names of workers and the errors of the index.
    """
    found = services.readiness.dependencies
    checks = {
        "database": _database(found),
        "broker": _broker(found),
        "index": _index(found, services.readiness.index_loaded, viewer),
        "hub_token": _hub_token(found, viewer),
    }
    failed_checks = [name for name, check in checks.items() if not check.ok]
    ready = not set(REQUIRED) & set(failed_checks)
    if not ready:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return schemas.Readiness(ready=ready, failed_checks=failed_checks, checks=checks)


def _database(found: Dependencies) -> schemas.Check:
    if found.database:
        return schemas.Check(ok=True, detail="Postgres answers.")
    return schemas.Check(ok=False, detail="Postgres does not answer at DATABASE_URL.")


def _broker(found: Dependencies) -> schemas.Check:
    if found.broker:
        return schemas.Check(ok=True, detail="Redis answers.")
    return schemas.Check(ok=False, detail="Redis does not answer at REDIS_URL. New jobs wait until it is back.")


def _index(found: Dependencies, loaded: bool, viewer: Viewer) -> schemas.Check:
    if not loaded:
        return schemas.Check(ok=False, detail="The index is still being loaded.")
    problems = found.index_problems
    if not problems:
        return schemas.Check(ok=True, detail="The index is loaded.")
    detail = " ".join(problems) if viewer.is_admin else f"it has {len(problems)} problems, which admins see."
    return schemas.Check(ok=True, detail=f"The index is loaded, but: {detail}")


def _hub_token(found: Dependencies, viewer: Viewer) -> schemas.Check:
    affected = found.affected_workers
    if affected is None:
        return schemas.Check(ok=True, detail="Not known while Postgres does not answer.")
    if not affected:
        return schemas.Check(ok=True, detail="No worker reports that the Hub rejects HF_TOKEN.")
    named = f"the workers {', '.join(affected)}" if viewer.is_admin else f"{len(affected)} worker(s)"
    return schemas.Check(
        ok=False,
        detail=f"{HubTokenInvalid.code}: the Hub rejects HF_TOKEN of {named}. Public repos are read "
        "without it, jobs for others wait. Set a valid token and restart the workers.",
    )
