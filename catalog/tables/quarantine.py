"""Quarantine: repos and bases whose files ended processes of this server."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, Identity, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from catalog.tables.base import Base, one_of


class QuarantineKind(StrEnum):
    REPO = "repo"
    BASE = "base"


class QuarantineEntry(Base):
    """How many processes the files of a repo or base ended at one commit. It is quarantined once `quarantined_at` is
    set. `repo_id` is in lower case.
    """

    __tablename__ = "quarantine_entries"
    __table_args__ = (
        CheckConstraint(one_of("kind", QuarantineKind), name="kind"),
        UniqueConstraint("kind", "repo_id", "sha", "submitted_base"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    kind: Mapped[str]
    repo_id: Mapped[str]
    sha: Mapped[str]  # empty if the process ended before the commit was known: then it applies to all commits
    submitted_base: Mapped[str]  # the base that the submission named, if that may be to blame; else empty
    ends: Mapped[int]  # processes that ended since the last success
    error_code: Mapped[str]  # of the last end
    error_message: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_end_at: Mapped[datetime] = mapped_column(server_default=func.now())
    quarantined_at: Mapped[datetime | None]
