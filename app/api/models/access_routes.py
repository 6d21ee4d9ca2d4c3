"""Routes for admins: access to private models."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Self

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from app.api.auth.admin import ADMIN_ERRORS, admin
from app.api.limits import no_query
from app.api.problems import problems
from app.api.schemas import ModelName, OwnerName, Strict
from app.api.services.services import ServicesDep
from catalog.auth.viewer import check_key, hash_key
from catalog.errors import BodyTooLarge, InvalidRepoId, ModelNotFound, WeakKey
from catalog.jobs import private_models
from catalog.models.repo_ref import RepoRef
from catalog.tables import ModelAccess

router = APIRouter(
    prefix="/v1/admin/models/{owner}/{name}/access", tags=["admin"], dependencies=[no_query, admin]
)  # fmt: skip
_FAILURES = (ModelNotFound, InvalidRepoId, *ADMIN_ERRORS)


class Grantee(Strict):
    """A submitter: an API key or its hash. Keys are hashed and not stored."""

    key: SecretStr | None = Field(None, min_length=1, max_length=1_000, description="Key as sent in `X-API-Key`.")
    submitter: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="SHA-256 of an API key, in hex.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.key is None) == (self.submitter is None):
            raise ValueError("set either `key` or `submitter`")
        return self

    def hashed(self) -> str:
        return self.submitter or hash_key(self.key.get_secret_value() if self.key else "")

    def check(self) -> Self:
        """Raises `WeakKey`. The strength of a hashed key is unknown."""
        if self.key is not None:
            check_key(self.key.get_secret_value())
        return self


class Access(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    submitter: str = Field(description="SHA-256 of an API key, in hex.")
    by_admin: bool = Field(description="Whether an admin granted it; otherwise a job of the submitter did.")
    created_at: datetime


class AccessList(BaseModel):
    access: list[Access]

    @classmethod
    def from_rows(cls, rows: Sequence[ModelAccess]) -> Self:
        return cls(access=[Access.model_validate(row) for row in rows])


@router.get("", responses=problems(*_FAILURES))
def list_access(owner: OwnerName, name: ModelName, services: ServicesDep) -> AccessList:
    """List the submitters with access to a private model."""
    return AccessList.from_rows(private_models.list_access(services.database, RepoRef(f"{owner}/{name}").repo_id))


@router.put("", responses=problems(*_FAILURES, WeakKey, BodyTooLarge))
def grant_access(owner: OwnerName, name: ModelName, grantee: Grantee, services: ServicesDep) -> AccessList:
    """Give a submitter access to a private model."""
    repo_id = RepoRef(f"{owner}/{name}").repo_id
    return AccessList.from_rows(private_models.grant_access(services.database, repo_id, grantee.check().hashed()))


@router.delete("", responses=problems(*_FAILURES, BodyTooLarge))
def revoke_access(owner: OwnerName, name: ModelName, grantee: Grantee, services: ServicesDep) -> AccessList:
    """Revoke a submitter's access. A job with a Hub token that fetches the repo restores it."""
    return AccessList.from_rows(
        private_models.revoke_access(services.database, RepoRef(f"{owner}/{name}").repo_id, grantee.hashed())
    )
