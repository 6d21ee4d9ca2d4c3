"""Blocks: owners, repos and licenses that are not indexed."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, Identity, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from catalog.tables.base import Base, one_of


class BlockKind(StrEnum):
    OWNER = "owner"
    REPO = "repo"
    LICENSE = "license"


class Block(Base):
    """An owner, a repo or a license whose models are not indexed. `value` is in lower case."""

    __tablename__ = "blocks"
    __table_args__ = (CheckConstraint(one_of("kind", BlockKind), name="kind"), UniqueConstraint("kind", "value"))

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    kind: Mapped[str]
    value: Mapped[str]
    reason: Mapped[str | None]  # a note for admins
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
