"""The value of an expression: a weighted sum of vectors of one space, with its noise floor.

Each vector is v_i = s_i + e_i, the shift of the model plus noise with |e_i| <= f_i, its noise floor. The noise of the
sum, sum_i w_i e_i, is therefore at most sum_i |w_i| f_i (triangle inequality). The square root of sum_i w_i^2 f_i^2
would require independent errors, but all vectors are measured against the same activations of the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy.orm import Session

from catalog.arithmetic.expressions import parse
from catalog.arithmetic.terms import ResolvedTerm, resolve
from catalog.auth.viewer import PUBLIC, Viewer
from catalog.errors import ZeroVector
from catalog.tables import SpaceRow
from catalog.vectors.numeric import RELATIVE_ROUNDING_ERROR


@dataclass(frozen=True)
class WeightedTerm:
    """A resolved term with its weight; `norm` is that of its vector in the sum before weighting."""

    weight: float
    resolved: ResolvedTerm
    norm: float


@dataclass(frozen=True)
class Sum:
    """The value of an expression, float64 (d,), with its norm and noise floor (a norm; None if that of a term was not
    measured).
    """

    space: SpaceRow
    terms: tuple[WeightedTerm, ...]
    vector: np.ndarray
    norm: float
    noise_floor: float | None


def compute(
    session: Session,
    text: str,
    *,
    space_key: str | None = None,
    unit_terms: bool = False,
    viewer: Viewer = PUBLIC,
) -> Sum:
    """Compute the value of an expression; `unit_terms` scales every term to length 1.

    Raises `InvalidExpression`, `ZeroVector`, and what `terms.resolve` raises.
    """
    terms = parse(text)
    resolved = resolve(session, terms, space_key, viewer)
    return _sum(resolved, [term.weight for term in terms], unit_terms)


def _sum(resolved: Sequence[ResolvedTerm], weights: Sequence[float], unit_terms: bool) -> Sum:
    scales = [1 / term.norm if unit_terms else 1.0 for term in resolved]
    terms = tuple(
        WeightedTerm(weight, term, term.norm * scale)
        for weight, term, scale in zip(weights, resolved, scales, strict=True)
    )
    factors = np.array(weights) * scales  # (t,)
    vector = factors @ np.stack([term.vector for term in resolved])  # (d,)
    norm = float(np.linalg.norm(vector))
    if norm <= RELATIVE_ROUNDING_ERROR * sum(abs(term.weight) * term.norm for term in terms):
        raise ZeroVector("This sum is zero: its terms cancel out, or their weights are zero.")
    noise_floors = [term.noise_floor for term in resolved]
    noise_floor = None
    if all(floor is not None for floor in noise_floors):
        noise_floor = float(np.abs(factors) @ np.array(noise_floors, np.float64))
    return Sum(resolved[0].space, terms, vector, norm, noise_floor)
