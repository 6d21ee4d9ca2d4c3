"""Vectors that users stored under a name."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import numpy as np
from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, LargeBinary, func, text
from sqlalchemy.orm import Mapped, mapped_column

from catalog.tables.base import Base, one_of


class VectorOrigin(StrEnum):
    VECTOR = "vector"  # the request had its numbers
    EXPRESSION = "expression"


class StoredVector(Base):
    """A named vector of a space, float32 (dimension,), not normalized. The value of an expression is stored as it was
    when it was saved, with the text of the expression.
    """

    __tablename__ = "stored_vectors"
    __table_args__ = (
        Index("uq_stored_vectors_name", text("coalesce(viewer, '')"), "name", unique=True),
        CheckConstraint("octet_length(data) = 4 * dimension", name="length"),
        CheckConstraint(one_of("origin", VectorOrigin), name="origin"),
        CheckConstraint(f"(origin = '{VectorOrigin.EXPRESSION}') = (expression IS NOT NULL)", name="expression"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str]
    viewer: Mapped[str | None]  # the hash of the only API key that may see it; null: public
    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id", ondelete="CASCADE"), index=True)
    dimension: Mapped[int]
    data: Mapped[bytes] = mapped_column(LargeBinary)
    norm: Mapped[float]
    noise_floor: Mapped[float | None]  # a norm; null: not measured
    origin: Mapped[str]
    expression: Mapped[str | None]
    unit_terms: Mapped[bool] = mapped_column(server_default=text("false"))  # terms were scaled to length 1
    note: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    @property
    def numbers(self) -> np.ndarray:
        """float32 (dimension,)."""
        return np.frombuffer(self.data, "<f4")
