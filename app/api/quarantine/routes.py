"""Routes for admins: what is quarantined, and lifting it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from app.api import pagination
from app.api.limits import no_query
from app.api.problems import problems
from app.api.quarantine import schemas
from app.api.schemas import Id
from app.api.services.services import ServicesDep
from catalog.errors import InvalidCursor, QuarantineNotFound
from catalog.quarantine import service as quarantine_service

router = APIRouter(prefix="/v1/admin/quarantine", tags=["admin"])


@router.get("", responses=problems(InvalidCursor))
def list_quarantine(query: Annotated[schemas.QuarantineQuery, Query()], services: ServicesDep) -> schemas.Quarantine:
    """List quarantined repos and bases, newest first."""
    before = pagination.decode(query.cursor)
    rows = quarantine_service.list_page(services.database, repo_id=query.repo, before=before, limit=query.limit)
    entries = [schemas.Entry.from_row(row) for row in rows]
    next_cursor = pagination.next_cursor(rows, query.limit, lambda row: row.id)
    return schemas.Quarantine(quarantine=entries, next_cursor=next_cursor)


@router.delete("/{entry_id}", dependencies=[no_query], responses=problems(QuarantineNotFound))
def lift_quarantine(entry_id: Id, services: ServicesDep) -> schemas.Entry:
    """Lift the quarantine of a repo or base, and return what it was. Jobs that failed because of it are not run again
    by themselves: retry them.
    """
    return schemas.Entry.from_row(quarantine_service.lift(services.database, entry_id))
