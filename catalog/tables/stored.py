"""Vectors that people gave a name."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import numpy as np
from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, LargeBinary, func, text
from sqlalchemy.orm import Mapped, mapped_column

from catalog.tables.base import Base, one_of


class VectorOrigin(StrEnum):
    GIVEN = "given"  # its numbers were sent
    EXPRESSION = "expression"


class StoredVector(Base):
    """A vector of a space under a name: float32 (dimension,), not normalised. What was an expression is stored as the
    value that it had then, beside its text.
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
    viewer: Mapped[str | None]  # the submitter that alone may see it, by the hash of its key; null: everybody
    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id", ondelete="CASCADE"), index=True)
    dimension: Mapped[int]
    data: Mapped[bytes] = mapped_column(LargeBinary)
    norm: Mapped[float]
    noise_floor: Mapped[float | None]  # a norm; None: not measured
    origin: Mapped[str]
    expression: Mapped[str | None]
    unit_terms: Mapped[bool] = mapped_column(server_default=text("false"))  # each term of the expression at length 1
    note: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    @property
    def numbers(self) -> np.ndarray:
        """float32 (dimension,)."""
        return np.frombuffer(self.data, "<f4")
