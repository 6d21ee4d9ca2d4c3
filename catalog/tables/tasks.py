"""Tasks by example: what was asked, what was measured on each base, and the vectors that came out."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, LargeBinary, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from catalog.tables.base import Base


class Task(Base):
    """Some examples to find models for. The examples leave with its last job unless `keep_examples`."""

    __tablename__ = "tasks"
    __table_args__ = (
        Index("uq_tasks_name", text("coalesce(viewer, '')"), "name", unique=True),
        Index("ix_tasks_examples", "id", postgresql_where=text("examples IS NOT NULL AND NOT keep_examples")),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str | None]
    viewer: Mapped[str | None]  # the submitter that alone may see it, by the hash of its key; null: everybody
    examples: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB(none_as_null=True))
    count: Mapped[int]  # of the examples
    keep_examples: Mapped[bool]
    keep_adapter: Mapped[bool] = mapped_column(server_default=text("false"))  # that of all examples, as an archive
    verify: Mapped[int]  # how many of the models that it finds are scored on examples held back
    seed: Mapped[int]
    recipe: Mapped[dict[str, Any]] = mapped_column(JSONB)  # `catalog.tasks.training_config.Recipe`
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    runs: Mapped[list[TaskRun]] = relationship(order_by="TaskRun.id", viewonly=True, lazy="selectin")


class TaskRun(Base):
    """A task on one base: what its job trains, measures and scores."""

    __tablename__ = "task_runs"
    __table_args__ = (UniqueConstraint("task_id", "base_repo", "base_sha"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"))
    model_id: Mapped[int] = mapped_column(
        ForeignKey("models.id", ondelete="CASCADE"), unique=True
    )  # that its job is of
    base_repo: Mapped[str]
    base_sha: Mapped[str]
    figures: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB(none_as_null=True)
    )  # seconds, losses, scores of models


class TaskVector(Base):
    """One of a run's vectors in one space, float32 (dimension,), not normalised: of the adapter that was trained on all
    examples (`part` 0), or of one that was trained on a half of them.
    """

    __tablename__ = "task_vectors"
    __table_args__ = (CheckConstraint("octet_length(data) = 4 * dimension", name="length"),)

    run_id: Mapped[int] = mapped_column(ForeignKey("task_runs.id", ondelete="CASCADE"), primary_key=True)
    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id", ondelete="CASCADE"), primary_key=True)
    part: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    dimension: Mapped[int]
    data: Mapped[bytes] = mapped_column(LargeBinary)

    @property
    def numbers(self) -> np.ndarray:
        return np.frombuffer(self.data, "<f4")
