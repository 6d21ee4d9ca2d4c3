"""Routes for admins: API keys."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, status

from app.api import pagination
from app.api.auth.caller import CallerDep
from app.api.keys import schemas
from app.api.limits import no_query
from app.api.problems import problems
from app.api.schemas import PageQuery
from app.api.services.services import ServicesDep
from catalog.auth import keys
from catalog.errors import BodyTooLarge, InvalidCursor, KeyNotFound

router = APIRouter(prefix="/v1/admin/keys", tags=["admin"])
Prefix = Annotated[str, Path(max_length=100, description="The visible part of the key.")]


@router.post("", status_code=status.HTTP_201_CREATED, dependencies=[no_query], responses=problems(BodyTooLarge))
def create_key(new: schemas.NewKey, services: ServicesDep, caller: CallerDep) -> schemas.CreatedKey:
    """Create an API key. The response is the only place where it is shown."""
    return schemas.CreatedKey.from_row(*keys.create(services.database, new.to_request(), created_by=caller.name))


@router.get("", responses=problems(InvalidCursor))
def list_keys(query: Annotated[PageQuery, Query()], services: ServicesDep) -> schemas.Keys:
    """List API keys without their secret parts, newest first."""
    rows = keys.list_page(services.database, before=pagination.decode(query.cursor), limit=query.limit)
    return schemas.Keys.from_rows(rows, pagination.next_cursor(rows, query.limit, lambda row: row.id))


@router.delete("/{prefix}", dependencies=[no_query], responses=problems(KeyNotFound))
def revoke_key(prefix: Prefix, services: ServicesDep) -> schemas.Key:
    """Revoke an API key, and return it. What it created stays."""
    return schemas.Key.model_validate(keys.revoke(services.database, prefix))
