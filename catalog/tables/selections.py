"""Selections: sets of adapters that were composed for a task, and their losses."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Identity, Text, func, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from catalog.tables.base import Base


class Selection(Base):
    """A request to compose sets of adapters for a task on one base, and its result. The job is of a hidden model."""

    __tablename__ = "selections"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"), index=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("task_runs.id", ondelete="CASCADE"))  # has the task's vector
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), unique=True)
    viewer: Mapped[str | None] = mapped_column(index=True)  # the hash of the only API key that may see it; null: public
    base_repo: Mapped[str]
    count: Mapped[int]  # adapters in a set
    strategies: Mapped[list[str]] = mapped_column(JSONB)  # `catalog.selections.strategies.Strategy`
    seed: Mapped[int]  # draws the examples that weights are chosen by
    team_tags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'::text[]"))  # of every member
    budget: Mapped[int]  # maximum number of weightings that are tried for a set
    metrics: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))  # `workers.selections.results`
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
