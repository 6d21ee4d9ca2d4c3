"""Routes for admins: what the retention deletes."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.limits import no_query
from app.api.maintenance import schemas
from app.api.problems import problems
from app.api.services.services import ServicesDep
from app.api.settings import SettingsDep
from catalog.maintenance import retention

router = APIRouter(prefix="/v1/admin/sweep", tags=["admin"])


@router.get("", dependencies=[no_query], responses=problems())
def preview_sweep(services: ServicesDep, settings: SettingsDep) -> schemas.SweepPreview:
    """Show how much is stored of each kind, and what a sweep would delete now, without deleting anything."""
    reports = retention.report(services.database, retention.retention_of(settings))
    return schemas.SweepPreview.from_reports(reports, settings)


@router.post("", dependencies=[no_query], responses=problems())
def sweep(services: ServicesDep, settings: SettingsDep) -> schemas.Sweep:
    """Delete what has expired, as workers do every hour: at most some thousands of rows of each kind. If the answer is
    not `complete`, there is more to delete.
    """
    return schemas.Sweep.from_result(retention.sweep(services.database, retention.retention_of(settings)))
