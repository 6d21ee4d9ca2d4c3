"""JSON of stored vectors."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field, model_validator

from app.api.schemas import Space, SpaceName, Strict
from app.api.search.schemas import Expression, UnitTerms, Vector
from catalog import tables
from catalog.tables import VectorOrigin


class NewVector(Strict):
    """A vector of a space, or the current value of an expression, with the name to store it under."""

    name: str = Field(max_length=200, description="Letters, digits and . _ - only.")
    space: SpaceName = None
    vector: Vector | None = None
    expression: Expression | None = None
    unit_terms: UnitTerms = False
    note: str | None = Field(None, max_length=1_000)

    @model_validator(mode="after")
    def _one_value(self) -> Self:
        if (self.vector is None) == (self.expression is None):
            raise ValueError("exactly one of `vector` and `expression` is required")
        if self.unit_terms and self.expression is None:
            raise ValueError("`unit_terms` requires `expression`")
        return self


class StoredVector(BaseModel):
    name: str
    space: Space
    norm: float
    noise_floor: float | None = Field(description="The norm that noise explains; null if it was not measured.")
    origin: VectorOrigin
    expression: str | None = Field(description="The expression that had this value when it was stored.")
    unit_terms: bool
    note: str | None
    created_at: datetime

    @classmethod
    def from_row(cls, stored: tables.StoredVector, space: tables.SpaceRow) -> Self:
        return cls(**_fields(stored, space))


class StoredVectorWithNumbers(StoredVector):
    vector: list[float]

    @classmethod
    def from_row(cls, stored: tables.StoredVector, space: tables.SpaceRow) -> Self:
        return cls(**_fields(stored, space), vector=stored.numbers.tolist())


def _fields(stored: tables.StoredVector, space: tables.SpaceRow) -> dict:
    columns = ("name", "norm", "noise_floor", "origin", "expression", "unit_terms", "note", "created_at")
    return {name: getattr(stored, name) for name in columns} | {"space": Space.from_row(space)}


class StoredVectors(BaseModel):
    vectors: list[StoredVector]
    next_cursor: str | None
