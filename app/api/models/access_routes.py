"""Routes for administrators: who may see private models."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from app.api.auth.admin import FOR_ADMINS, admin
from app.api.limits import no_query
from app.api.problems import problems
from app.api.schemas import ModelName, OwnerName, Strict
from app.api.services.services import ServicesDep
from catalog.auth.viewer import check_key, hash_of_key
from catalog.errors import BodyTooLarge, InvalidRepoId, ModelNotFound, WeakKey
from catalog.jobs import private_models
from catalog.models.repo_ref import RepoRef

router = APIRouter(
    prefix="/v1/admin/models/{owner}/{name}/access", tags=["admin"], dependencies=[no_query, admin]
)  # fmt: skip
_FAILURES = (ModelNotFound, InvalidRepoId, *FOR_ADMINS)


class Grantee(Strict):
    """A submitter, by its key or by the hash of it. A key is hashed at once."""

    key: SecretStr | None = Field(None, min_length=1, max_length=1_000, description="As it is sent in `X-API-Key`.")
    submitter: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="SHA-256 of a key.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.key is None) == (self.submitter is None):
            raise ValueError("give either `key` or `submitter`")
        return self

    def hashed(self) -> str:
        return self.submitter or hash_of_key(self.key.get_secret_value() if self.key else "")

    def check(self) -> Self:
        """Raises `WeakKey`; of a hash nobody can tell."""
        if self.key is not None:
            check_key(self.key.get_secret_value())
        return self


class Access(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    submitter: str = Field(description="SHA-256 of a key.")
    by_admin: bool = Field(description="Whether an admin let it in; otherwise a job of its own read the repo.")
    created_at: datetime


class AccessList(BaseModel):
    access: list[Access]

    @classmethod
    def of(cls, granted: object) -> Self:
        return cls.model_validate({"access": granted}, from_attributes=True)


@router.get("", responses=problems(*_FAILURES))
def show(owner: OwnerName, name: ModelName, services: ServicesDep) -> AccessList:
    """Who may see a private model."""
    return AccessList.of(private_models.allowed(services.database, RepoRef(f"{owner}/{name}").repo_id))


@router.put("", responses=problems(*_FAILURES, WeakKey, BodyTooLarge))
def grant(owner: OwnerName, name: ModelName, grantee: Grantee, services: ServicesDep) -> AccessList:
    """Let a submitter see a private model."""
    repo_id = RepoRef(f"{owner}/{name}").repo_id
    return AccessList.of(private_models.allow(services.database, repo_id, grantee.check().hashed()))


@router.delete("", responses=problems(*_FAILURES, BodyTooLarge))
def revoke(owner: OwnerName, name: ModelName, grantee: Grantee, services: ServicesDep) -> AccessList:
    """Let it see the model no more, until a job of its own, with a token, reads the repo again."""
    return AccessList.of(private_models.forbid(services.database, RepoRef(f"{owner}/{name}").repo_id, grantee.hashed()))
