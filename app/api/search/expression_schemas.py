"""The answer to an expression, as JSON."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, Field

from app.api.search.schemas import Neighbors
from catalog.arithmetic import service as arithmetic_service
from catalog.arithmetic.sums import Weighted


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
    def of(cls, compared: arithmetic_service.Compared) -> Self:
        return cls(repo_id=compared.repo_id, known=compared.known, **vars(compared.residual))


class Composed(Neighbors):
    """Neighbours of a sum, and the sum as it was understood."""

    expression: str
    unit_terms: bool
    terms: list[Term]
    residuals: list[Residual] = Field(description="Of the model asked about, or else of the known mixtures.")

    @classmethod
    def of_sum(cls, found: arithmetic_service.Composed) -> Self:
        return cls(
            **Neighbors.of(found.answer).model_dump(),
            expression=found.question.expression,
            unit_terms=found.question.unit_terms,
            terms=[Term.of(term) for term in found.total.terms],
            residuals=[Residual.of(each) for each in found.compared],
        )
