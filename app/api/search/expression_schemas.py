"""JSON of the answer to a search by expression."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, Field

from app.api.search.schemas import Neighbors
from catalog.arithmetic import service as arithmetic_service
from catalog.arithmetic.sums import WeightedTerm


class Term(BaseModel):
    kind: str = Field(examples=["model"])
    term: str = Field(description="The canonical form of the term, which is unambiguous in every expression.")
    name: str
    weight: float
    norm: float = Field(description="The norm of its vector in the sum, before weighting.")

    @classmethod
    def from_term(cls, term: WeightedTerm) -> Self:
        resolved = term.resolved
        return cls(kind=resolved.kind, term=resolved.canonical, name=resolved.title, weight=term.weight, norm=term.norm)


class Residual(BaseModel):
    """How well the sum predicts a model's vector."""

    repo_id: str
    known_mixture: bool = Field(description="Whether it is a known mixture of the terms, not the model in `compare`.")
    cosine: float = Field(description="Raw cosine of the model's vector and the sum.")
    relative: float = Field(description="Norm of their difference, divided by the norm of the model's vector.")
    min_relative: float = Field(description="The same with the sum multiplied by `scale`, which minimizes it.")
    scale: float = Field(description="The factor at which the sum is nearest to the model's vector.")

    @classmethod
    def from_residual(cls, residual: arithmetic_service.ModelResidual) -> Self:
        return cls(repo_id=residual.repo_id, known_mixture=residual.known_mixture, **vars(residual.residual))


class ExpressionNeighbors(Neighbors):
    """The neighbors of a sum, with the terms as they were resolved."""

    expression: str
    unit_terms: bool
    terms: list[Term]
    residuals: list[Residual] = Field(description="For the model in `compare`, or else for the known mixtures.")

    @classmethod
    def from_expression_answer(cls, answer: arithmetic_service.ExpressionAnswer) -> Self:
        return cls(
            **Neighbors.from_answer(answer.answer).model_dump(),
            expression=answer.query.expression,
            unit_terms=answer.query.unit_terms,
            terms=[Term.from_term(term) for term in answer.total.terms],
            residuals=[Residual.from_residual(residual) for residual in answer.residuals],
        )
