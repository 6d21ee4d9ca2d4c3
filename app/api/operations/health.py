"""Routes of health checks: of the process and of its dependencies."""

from __future__ import annotations

from fastapi import APIRouter, Response, status

from app.api.auth.caller import ViewerDep
from app.api.limits import no_query
from app.api.operations import schemas
from app.api.problems import problems
from app.api.services.services import Services, ServicesDep
from app.api.settings import SettingsDep
from catalog.auth.viewer import Viewer
from catalog.errors import DatabaseUnavailable, HubTokenInvalid
from catalog.index import service as index_service
from catalog.jobs import service as job_service
from catalog.queue import broker_answers

router = APIRouter(tags=["health"])
REQUIRED = ("database", "broker", "index")  # the checks that a process needs to answer requests


@router.get("/healthz", dependencies=[no_query], responses=problems())
def check_liveness() -> dict[str, str]:
    """Confirm that the process is up."""
    return {"status": "up"}


@router.get(
    "/readyz",
    dependencies=[no_query],
    responses={**problems(), 503: {"model": schemas.Readiness, "description": "A dependency is not ready."}},
)
def check_readiness(
    services: ServicesDep, settings: SettingsDep, viewer: ViewerDep, response: Response
) -> schemas.Readiness:
    """Check the database, the broker, the index, and the Hub token of the workers. The process is ready despite an
    invalid token, because only jobs for repos that are not public need it. Only admins see the names of workers and the
    errors of the index.
    """
    checks = {
        "database": _database(services),
        "broker": _broker(),
        "index": _index(services, viewer),
        "hub_token": _hub_token(services, settings.heartbeat_timeout, viewer),
    }
    failed_checks = [name for name, check in checks.items() if not check.ok]
    ready = not set(REQUIRED) & set(failed_checks)
    if not ready:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return schemas.Readiness(ready=ready, failed_checks=failed_checks, checks=checks)


def _database(services: Services) -> schemas.Check:
    try:
        services.database.ping()
    except DatabaseUnavailable:
        return schemas.Check(ok=False, detail="Postgres does not answer at DATABASE_URL.")
    return schemas.Check(ok=True, detail="Postgres answers.")


def _broker() -> schemas.Check:
    if broker_answers():
        return schemas.Check(ok=True, detail="Redis answers.")
    return schemas.Check(ok=False, detail="Redis does not answer at REDIS_URL. New jobs wait until it is back.")


def _index(services: Services, viewer: Viewer) -> schemas.Check:
    if not services.index.loaded:
        return schemas.Check(ok=False, detail="The index is still being loaded.")
    problems = _index_problems(services)
    if not problems:
        return schemas.Check(ok=True, detail="The index is loaded.")
    detail = " ".join(problems) if viewer.is_admin else f"it has {len(problems)} problems, which admins see."
    return schemas.Check(ok=True, detail=f"The index is loaded, but: {detail}")


def _index_problems(services: Services) -> list[str]:
    """Damaged segments and failed builds, in sentences. Searches are answered despite them."""
    reports = services.index.report()
    problems = [f"space {report.space_id}: {report.problem}" for report in reports if report.problem]
    try:
        errors = index_service.build_errors(services.database, [report.space_id for report in reports])
    except DatabaseUnavailable:
        return problems
    return problems + [f"space {space_id}: the last build failed: {error}" for space_id, error in errors.items()]


def _hub_token(services: Services, heartbeat_timeout: float, viewer: Viewer) -> schemas.Check:
    try:
        workers, _ = job_service.list_workers(services.database, heartbeat_timeout)
    except DatabaseUnavailable:
        return schemas.Check(ok=True, detail="Not known while Postgres does not answer.")
    affected = [f"{worker.host}:{worker.pid}" for worker in workers if worker.status.get("hub_token_invalid")]
    if not affected:
        return schemas.Check(ok=True, detail="No worker reports that the Hub rejects HF_TOKEN.")
    named = f"the workers {', '.join(affected)}" if viewer.is_admin else f"{len(affected)} worker(s)"
    return schemas.Check(
        ok=False,
        detail=f"{HubTokenInvalid.code}: the Hub rejects HF_TOKEN of {named}. Public repos are read "
        "without it, jobs for others wait. Set a valid token and restart the workers.",
    )
