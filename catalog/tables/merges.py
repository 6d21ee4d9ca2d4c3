"""Merges of adapters, and their vectors."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, LargeBinary, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from catalog.tables.base import Base


class Merge(Base):
    """Adapters of one base that a job merges into one."""

    __tablename__ = "merges"
    __table_args__ = (Index("uq_merges_name", text("coalesce(viewer, '')"), "name", unique=True),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    # the hidden model that the merge's job and archive belong to
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), unique=True)
    name: Mapped[str | None]
    viewer: Mapped[str | None] = mapped_column(
        index=True
    )  # the submitter (hash of an API key) that alone sees the merge; null: public
    base_repo: Mapped[str]
    base_sha: Mapped[str]
    method: Mapped[str]  # of `catalog.merges.methods.METHODS`
    settings: Mapped[dict[str, Any]] = mapped_column(JSONB)  # only settings that the method has
    parts: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)  # model_id, repo_id, sha, weight, license, datasets
    plan: Mapped[dict[str, Any]] = mapped_column(JSONB)  # `catalog.merges.plans.as_dict`
    metrics: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))  # what the job measured
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class MergeVector(Base):
    """One of a merge's vectors in one space, float32 (dimension,), not normalized: the `predicted` or the measured
    one.
    """

    __tablename__ = "merge_vectors"
    __table_args__ = (CheckConstraint("octet_length(data) = 4 * dimension", name="length"),)

    merge_id: Mapped[int] = mapped_column(ForeignKey("merges.id", ondelete="CASCADE"), primary_key=True)
    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id", ondelete="CASCADE"), primary_key=True)
    predicted: Mapped[bool] = mapped_column(primary_key=True)
    dimension: Mapped[int]
    data: Mapped[bytes] = mapped_column(LargeBinary)

    @property
    def vector(self) -> np.ndarray:
        return np.frombuffer(self.data, "<f4")
