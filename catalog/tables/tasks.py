"""Tasks by example, their runs on bases, and the vectors of the runs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, LargeBinary, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from catalog.tables.base import Base


class Task(Base):
    """Examples to find models for. The examples are deleted after the task's last job, unless `keep_examples`."""

    __tablename__ = "tasks"
    __table_args__ = (
        Index("uq_tasks_name", text("coalesce(viewer, '')"), "name", unique=True),
        Index("ix_tasks_examples", "id", postgresql_where=text("examples IS NOT NULL AND NOT keep_examples")),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str | None]
    viewer: Mapped[str | None] = mapped_column(
        index=True
    )  # the submitter (hash of an API key) that alone sees the task; null: public
    examples: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB(none_as_null=True))
    count: Mapped[int]  # of the examples
    keep_examples: Mapped[bool]
    keep_adapter: Mapped[bool] = mapped_column(server_default=text("false"))  # the one trained on all examples
    verify: Mapped[int]  # number of nearest models that are scored on the holdout
    seed: Mapped[int]
    training_config: Mapped[dict[str, Any]] = mapped_column(JSONB)  # `catalog.tasks.training_config.TrainingConfig`
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    runs: Mapped[list[TaskRun]] = relationship(order_by="TaskRun.id", viewonly=True, lazy="selectin")


class TaskRun(Base):
    """A task on one base."""

    __tablename__ = "task_runs"
    __table_args__ = (UniqueConstraint("task_id", "base_repo", "base_sha"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"))
    # the hidden model that the run's job and archive belong to
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), unique=True)
    base_repo: Mapped[str]
    base_sha: Mapped[str]
    # seconds, training losses, and scores of models
    metrics: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))


class TaskVector(Base):
    """One of a run's vectors in one space, float32 (dimension,), not normalized: that of the adapter trained on all
    examples (`sample` 0) or of one trained on half of them.
    """

    __tablename__ = "task_vectors"
    __table_args__ = (CheckConstraint("octet_length(data) = 4 * dimension", name="length"),)

    run_id: Mapped[int] = mapped_column(ForeignKey("task_runs.id", ondelete="CASCADE"), primary_key=True)
    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id", ondelete="CASCADE"), primary_key=True)
    sample: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    dimension: Mapped[int]
    data: Mapped[bytes] = mapped_column(LargeBinary)

    @property
    def vector(self) -> np.ndarray:
        return np.frombuffer(self.data, "<f4")
