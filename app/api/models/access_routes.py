"""Routes for admins: access to private models."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Self

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.api.limits import no_query
from app.api.problems import problems
from app.api.schemas import ModelName, OwnerName, Strict
from app.api.services.services import ServicesDep
from catalog.auth.keys import ADMIN_KEY_NAME
from catalog.errors import BodyTooLarge, InvalidRepoId, KeyNotFound, ModelNotFound
from catalog.jobs import private_models
from catalog.models.repo_ref import RepoRef
from catalog.tables import ApiKey, ModelAccess

router = APIRouter(prefix="/v1/admin/models/{owner}/{name}/access", tags=["admin"], dependencies=[no_query])
_FAILURES = (ModelNotFound, InvalidRepoId)


class Grantee(Strict):
    """The API key that gets or loses access."""

    prefix: str = Field(max_length=100, description="The visible part of the key.")


class Access(BaseModel):
    prefix: str | None = Field(description="The visible part of the API key; null for `ADMIN_API_KEY`.")
    name: str = Field(description="The name of the API key.")
    by_admin: bool = Field(description="Whether an admin granted it; otherwise a job of the submitter did.")
    created_at: datetime


class AccessList(BaseModel):
    access: list[Access]

    @classmethod
    def from_rows(cls, rows: Sequence[tuple[ModelAccess, ApiKey | None]]) -> Self:
        return cls(
            access=[
                Access(
                    prefix=key.prefix if key else None,
                    name=key.name if key else ADMIN_KEY_NAME,
                    by_admin=access.by_admin,
                    created_at=access.created_at,
                )
                for access, key in rows
            ]
        )


@router.get("", responses=problems(*_FAILURES))
def list_access(owner: OwnerName, name: ModelName, services: ServicesDep) -> AccessList:
    """List the API keys with access to a private model."""
    return AccessList.from_rows(private_models.list_access(services.database, RepoRef(f"{owner}/{name}").repo_id))


@router.put("", responses=problems(*_FAILURES, KeyNotFound, BodyTooLarge))
def grant_access(owner: OwnerName, name: ModelName, grantee: Grantee, services: ServicesDep) -> AccessList:
    """Give an API key access to a private model."""
    repo_id = RepoRef(f"{owner}/{name}").repo_id
    return AccessList.from_rows(private_models.grant_access(services.database, repo_id, grantee.prefix))


@router.delete("", responses=problems(*_FAILURES, KeyNotFound, BodyTooLarge))
def revoke_access(owner: OwnerName, name: ModelName, grantee: Grantee, services: ServicesDep) -> AccessList:
    """Revoke the access of an API key. A job of the key that fetches the repo with a Hub token restores it."""
    repo_id = RepoRef(f"{owner}/{name}").repo_id
    return AccessList.from_rows(private_models.revoke_access(services.database, repo_id, grantee.prefix))
