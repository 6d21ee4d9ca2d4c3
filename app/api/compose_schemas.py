"""Sums and stored vectors, as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field, model_validator

from app.api.schemas import Space, SpaceName, Strict
from app.api.search_schemas import Expression, Neighbors, UnitTerms, Vector
from catalog import composing, tables
from catalog.arithmetic.sums import Weighted
from catalog.tables import VectorOrigin


class Term(BaseModel):
    kind: str = Field(examples=["model"])
    term: str = Field(description="In its full form, which means the same in every expression.")
    name: str
    weight: float
    norm: float = Field(description="Of its vector in the sum, before the weight.")

    @classmethod
    def of(cls, term: Weighted) -> Self:
        meaning = term.meaning
        return cls(kind=meaning.kind, term=meaning.full, name=meaning.title, weight=term.weight, norm=term.norm)


class Residual(BaseModel):
    """How far the sum is from a model's vector."""

    repo_id: str
    known: bool = Field(description="Whether its card says that it is this mixture; otherwise it was asked about.")
    cosine: float = Field(description="Of the model's vector and the sum, as they are.")
    relative: float = Field(description="Length of their difference, in lengths of the model's vector.")
    least: float = Field(description="The same where the sum is multiplied by `scale`.")
    scale: float = Field(description="What the sum is to be multiplied by to come nearest.")

    @classmethod
    def of(cls, compared: composing.Compared) -> Self:
        return cls(repo_id=compared.repo_id, known=compared.known, **vars(compared.residual))


class Composed(Neighbors):
    """Neighbours of a sum, and the sum as it was understood."""

    expression: str
    unit_terms: bool
    terms: list[Term]
    residuals: list[Residual] = Field(description="Of the model asked about, or else of the known mixtures.")

    @classmethod
    def of_sum(cls, found: composing.Composed) -> Self:
        return cls(
            **Neighbors.of(found.answer).model_dump(),
            expression=found.question.expression,
            unit_terms=found.question.unit_terms,
            terms=[Term.of(term) for term in found.total.terms],
            residuals=[Residual.of(each) for each in found.compared],
        )


class NewVector(Strict):
    """A vector of a space, or the value that an expression has now, under a name."""

    name: str = Field(max_length=200, description="Letters, digits and . _ - only.")
    space: SpaceName = None
    vector: Vector | None = None
    expression: Expression | None = None
    unit_terms: UnitTerms = False
    note: str | None = Field(None, max_length=1_000)

    @model_validator(mode="after")
    def _one_value(self) -> Self:
        if (self.vector is None) == (self.expression is None):
            raise ValueError("give either `vector` or `expression`")
        if self.unit_terms and self.expression is None:
            raise ValueError("`unit_terms` goes with an `expression`")
        return self


class StoredVector(BaseModel):
    name: str
    space: Space
    norm: float
    noise_floor: float | None = Field(description="How much of it may be noise; null where it was not measured.")
    origin: VectorOrigin
    expression: str | None = Field(description="What it was the value of when it was stored.")
    unit_terms: bool
    note: str | None
    created_at: datetime

    @classmethod
    def of(cls, stored: tables.StoredVector, space: tables.SpaceRow) -> Self:
        return cls(**_fields(stored, space))


class StoredNumbers(StoredVector):
    vector: list[float]

    @classmethod
    def of(cls, stored: tables.StoredVector, space: tables.SpaceRow) -> Self:
        return cls(**_fields(stored, space), vector=stored.numbers.tolist())


def _fields(stored: tables.StoredVector, space: tables.SpaceRow) -> dict:
    columns = ("name", "norm", "noise_floor", "origin", "expression", "unit_terms", "note", "created_at")
    return {name: getattr(stored, name) for name in columns} | {"space": Space.of(space)}


class StoredVectors(BaseModel):
    vectors: list[StoredVector]
    next_cursor: str | None
