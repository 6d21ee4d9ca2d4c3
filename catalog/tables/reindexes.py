"""Reindexes, and the revisions for which they found another base."""

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
    READY = "ready"  # may cut over
    CUT_OVER = "cut_over"
    ROLLED_BACK = "rolled_back"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Stage(StrEnum):
    """The stage of a reindex that workers are working on."""

    QUEUEING = "queueing"  # jobs are created in pages
    MEASURING = "measuring"  # all jobs are created, and some are queued or running
    BACKFILLING = "backfilling"  # vectors that need no measuring are copied
    BUILDING = "building"  # the index, clusters and map of the new spaces
    DISCARDING = "discarding"  # the vectors of the new spaces become tombstones


ACTIVE_REINDEX = (ReindexState.RUNNING, ReindexState.READY)  # its jobs store vectors in the new spaces


class Reindex(Base):
    """A reindex. It measures models into new spaces of the edition `id`, beside the serving spaces.

    Its whole progress is in this row, which changes in the transaction that does the work, so after a crash another
    worker continues from here.
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
    selection: Mapped[dict[str, Any]] = mapped_column(JSONB)  # `catalog.reindexes.service.ReindexSelection`
    state: Mapped[str] = mapped_column(server_default=ReindexState.RUNNING)
    stage: Mapped[str | None] = mapped_column(server_default=Stage.QUEUEING)
    contract: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB(none_as_null=True))  # what its workers measure
    cursor: Mapped[int] = mapped_column(server_default=text("0"))  # id of the last model considered
    total: Mapped[int | None]  # models selected, counted at the start
    queued: Mapped[int] = mapped_column(server_default=text("0"))  # jobs created
    quarantined: Mapped[int] = mapped_column(server_default=text("0"))  # models skipped because they are quarantined
    backfilled: Mapped[int] = mapped_column(server_default=text("0"))  # vectors copied from spaces of the same contract
    # the seq up to which each space is backfilled, by "SOURCE_ID-TARGET_ID"
    positions: Mapped[dict[str, int]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    required_seq: Mapped[int | None]  # clusters and maps of the new spaces must cover the feed up to here
    report: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB(none_as_null=True))  # an entry per pair of spaces
    cutover_spaces: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB(none_as_null=True))  # ids of old and new
    cutover_seq: Mapped[int | None]  # the last seq of the feed at the cutover
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ready_at: Mapped[datetime | None]
    cut_over_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class ReindexMove(Base):
    """A revision for which a reindex found another base, or another commit of its base.

    Until the cutover the row holds the new base; the cutover swaps it with the revision's, for a rollback.
    """

    __tablename__ = "reindex_moves"

    reindex_id: Mapped[int] = mapped_column(ForeignKey("reindexes.id", ondelete="CASCADE"), primary_key=True)
    revision_id: Mapped[int] = mapped_column(ForeignKey("revisions.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str]
    base_repo: Mapped[str]
    base_sha: Mapped[str]
    base_evidence: Mapped[dict] = mapped_column(JSONB)
