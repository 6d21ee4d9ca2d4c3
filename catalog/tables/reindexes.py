"""Reindexes, and the models whose base they found to be another one."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from catalog.tables.base import Base, one_of


class ReindexState(StrEnum):
    RUNNING = "running"
    READY = "ready"  # the new spaces may serve
    SWITCHED = "switched"
    ROLLED_BACK = "rolled_back"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Stage(StrEnum):
    """What is being done of a reindex."""

    QUEUEING = "queueing"  # jobs are made, page by page
    MEASURING = "measuring"  # all are made, some wait or run
    CARRYING = "carrying"  # what need not be measured is copied
    BUILDING = "building"  # index, clusters and map of the new spaces
    DISCARDING = "discarding"  # the new spaces' vectors become tombstones


ACTIVE_REINDEX = (ReindexState.RUNNING, ReindexState.READY)  # jobs store in the new spaces


class Reindex(Base):
    """Models measured anew, into spaces of the edition `id` beside those that serve. All that it knows is here, and
    moves in the transaction that does the work: one that dies goes on where it was.
    """

    __tablename__ = "reindexes"
    __table_args__ = (
        CheckConstraint(one_of("state", ReindexState), name="state"),
        CheckConstraint(one_of("stage", Stage), name="stage"),
        Index(
            "ix_reindexes_open", "id", postgresql_where=text("state IN ('running', 'ready') OR stage = 'discarding'")
        ),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    selection: Mapped[dict[str, Any]] = mapped_column(JSONB)  # `catalog.reindexes.service.Selection`
    state: Mapped[str] = mapped_column(server_default=ReindexState.RUNNING)
    stage: Mapped[str | None] = mapped_column(server_default=Stage.QUEUEING)
    contract: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB(none_as_null=True))  # what its workers measure
    cursor: Mapped[int] = mapped_column(server_default=text("0"))  # the last model that was looked at
    total: Mapped[int | None]  # models selected, counted at the start
    queued: Mapped[int] = mapped_column(server_default=text("0"))  # jobs made
    quarantined: Mapped[int] = mapped_column(server_default=text("0"))  # models that have killed workers: left alone
    carried: Mapped[int] = mapped_column(server_default=text("0"))  # vectors copied from spaces of the same contract
    positions: Mapped[dict[str, int]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))  # `carrying.Place`
    settled_seq: Mapped[int | None]  # what is built of the new spaces must cover it
    report: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB(none_as_null=True))  # of each pair of spaces
    switched: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB(none_as_null=True))  # ids: old and new
    switched_seq: Mapped[int | None]  # the feed's end then
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ready_at: Mapped[datetime | None]
    switched_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class ReindexMove(Base):
    """A revision whose base a reindex found to be another one, or at another commit. Until the switch this holds what
    was found, after it what was there before.
    """

    __tablename__ = "reindex_moves"

    reindex_id: Mapped[int] = mapped_column(ForeignKey("reindexes.id", ondelete="CASCADE"), primary_key=True)
    revision_id: Mapped[int] = mapped_column(ForeignKey("revisions.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str]
    base_repo: Mapped[str]
    base_sha: Mapped[str]
    base_evidence: Mapped[dict] = mapped_column(JSONB)
