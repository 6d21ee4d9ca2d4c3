"""API keys and their roles."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, Identity, String, func
from sqlalchemy.orm import Mapped, mapped_column

from catalog.tables.base import Base, one_of


class Role(StrEnum):
    """What the holder of a key may do. Each role may also do what the roles before it may."""

    READER = "reader"  # search and read what is public, and what is the key's own
    SUBMITTER = "submitter"  # submit models, and create tasks, merges, selections and vectors
    ADMIN = "admin"  # see and change everything

    def includes(self, required: Role) -> bool:
        order = list(Role)
        return order.index(self) >= order.index(required)


class ApiKey(Base):
    """An API key. Only its hash is stored; `prefix` is the part that is shown, by which people tell keys apart.

    What belongs to a key (private models, tasks, merges, jobs) refers to its hash, and stays its own after it was
    revoked.
    """

    __tablename__ = "api_keys"
    __table_args__ = (CheckConstraint(one_of("role", Role), name="role"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    prefix: Mapped[str] = mapped_column(unique=True)
    hash: Mapped[str] = mapped_column(String(64), unique=True)  # `catalog.auth.viewer.hash_key`
    name: Mapped[str]
    role: Mapped[str]
    max_active_jobs: Mapped[int | None]  # null: DELTADEX_MAX_ACTIVE_JOBS
    created_by: Mapped[str]  # the name of the key that created it
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]  # to the minute
