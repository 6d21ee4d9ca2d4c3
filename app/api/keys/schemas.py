"""JSON of API keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from app.api.schemas import NO_NUL, Strict
from catalog.auth.keys import KeyRequest
from catalog.tables import ApiKey, Role

MAX_DAYS = 3_650
MAX_JOBS = 1_000_000


class NewKey(Strict):
    """An API key to create."""

    name: str = Field(min_length=1, max_length=100, pattern=NO_NUL, description="Who or what the key is for.")
    role: Role = Field(Role.READER, description="What its holder may do. Each role may do what those before it may.")
    days: float | None = Field(None, gt=0, le=MAX_DAYS, description="Until the key expires. Default: never.")
    max_active_jobs: int | None = Field(
        None, ge=0, le=MAX_JOBS, description="Active jobs at a time. Default: `DELTADEX_MAX_ACTIVE_JOBS`."
    )

    def to_request(self) -> KeyRequest:
        lifetime = timedelta(days=self.days) if self.days is not None else None
        return KeyRequest(self.name, self.role, lifetime, self.max_active_jobs)


class Key(BaseModel):
    """An API key without its secret part."""

    model_config = ConfigDict(from_attributes=True)

    prefix: str = Field(description="The visible part of the key.")
    name: str
    role: Role
    max_active_jobs: int | None
    created_by: str = Field(description="The name of the key that created it.")
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")


class CreatedKey(Key):
    """A new API key. Only its hash is stored, so it is shown only here."""

    key: str

    @classmethod
    def from_row(cls, row: ApiKey, key: str) -> Self:
        return cls(**Key.model_validate(row).model_dump(), key=key)


class Keys(BaseModel):
    keys: list[Key]
    next_cursor: str | None

    @classmethod
    def from_rows(cls, rows: Sequence[ApiKey], next_cursor: str | None) -> Self:
        return cls(keys=[Key.model_validate(row) for row in rows], next_cursor=next_cursor)
