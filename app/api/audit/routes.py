"""Routes for admins: the audit log."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from app.api import pagination
from app.api.audit import schemas
from app.api.problems import problems
from app.api.services.services import ServicesDep
from catalog.audit import service as audit_service
from catalog.errors import InvalidCursor

router = APIRouter(prefix="/v1/admin/audit", tags=["admin"])


@router.get("", responses=problems(InvalidCursor))
def list_acts(query: Annotated[schemas.AuditQuery, Query()], services: ServicesDep) -> schemas.Audit:
    """List acts that changed something, newest first."""
    before = pagination.decode(query.cursor)
    rows = audit_service.list_page(
        services.database, actor=query.actor, target=query.target, before=before, limit=query.limit
    )
    entries = [schemas.Entry.model_validate(row) for row in rows]
    return schemas.Audit(audit=entries, next_cursor=pagination.next_cursor(rows, query.limit, lambda row: row.id))
