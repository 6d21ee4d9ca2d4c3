"""Selections: sets of modules that were tried for a task, and what came out."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Identity, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from catalog.tables.base import Base


class Selection(Base):
    """What a job tries for a task on one base; its (hidden) model stands for it among jobs."""

    __tablename__ = "selections"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"), index=True)
    run_id: Mapped[int] = mapped_column(
        ForeignKey("task_runs.id", ondelete="CASCADE")
    )  # whose vector says what is near
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), unique=True)
    viewer: Mapped[str | None]  # the submitter that alone may see it, by the hash of its key; null: everybody
    base_repo: Mapped[str]
    count: Mapped[int]  # of the modules in a set
    arms: Mapped[list[str]] = mapped_column(JSONB)  # of `catalog.selections.strategies.Arm`
    seeds: Mapped[int]  # how many, from `seed` on
    seed: Mapped[int]
    budget: Mapped[int]  # weights that are tried for a set
    figures: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))  # of `workers.selections.results`
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
