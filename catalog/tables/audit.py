"""The audit log."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Identity, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from catalog.tables.base import Base


class AuditEntry(Base):
    """An act that changed something, or was meant to: who did it, what, from where, and how it ended."""

    __tablename__ = "audit_entries"
    __table_args__ = (Index(None, "actor", "id"), Index(None, "at"))

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    actor: Mapped[str]  # the name of a key with its prefix, or the user of a command on the server
    action: Mapped[str]  # method and path of a route, or a command
    target: Mapped[str]  # the model, job, key or other thing that it was about; may be empty
    address: Mapped[str]  # of the client; empty for a command on the server
    outcome: Mapped[str]  # "done", or the code of the error
