"""A weighted sum of vectors of one space, and how much of it may be noise.

v_i = what model i did + e_i, with |e_i| at most the noise floor f_i. So the noise of the sum, sum_i w_i e_i, is at most
sum_i |w_i| f_i (triangle inequality). The root of sum_i w_i^2 f_i^2 would do for errors that have nothing to do with
each other, and these have: every vector is measured against the same activations of the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy.orm import Session

from catalog.arithmetic.expressions import parse
from catalog.arithmetic.terms import Meaning, resolve
from catalog.auth.viewer import PUBLIC, Viewer
from catalog.errors import NothingLeft
from catalog.tables import SpaceRow
from catalog.vectors.numeric import ROUNDING


@dataclass(frozen=True)
class Weighted:
    """A term as it was understood; `norm` is that of its vector in the sum before the weight."""

    weight: float
    meaning: Meaning
    norm: float


@dataclass(frozen=True)
class Sum:
    """float64 (d,), its norm, the most of it that noise explains (a norm; None where a term's was not measured)."""

    space: SpaceRow
    terms: tuple[Weighted, ...]
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
    """The value of an expression; `unit_terms` takes every term at length 1.

    Raises `InvalidExpression`, `NothingLeft`, and what `terms.resolve` raises.
    """
    terms = parse(text)
    meanings = resolve(session, terms, space_key, viewer)
    return _sum(meanings, [each.weight for each in terms], unit_terms)


def _sum(meanings: Sequence[Meaning], weights: Sequence[float], unit_terms: bool) -> Sum:
    scales = [1 / each.norm if unit_terms else 1.0 for each in meanings]
    weighted = tuple(
        Weighted(weight, each, each.norm * scale)
        for weight, each, scale in zip(weights, meanings, scales, strict=True)
    )  # fmt: skip
    factors = np.array(weights) * scales  # (t,)
    vector = factors @ np.stack([each.vector for each in meanings])  # (d,)
    norm = float(np.linalg.norm(vector))
    if norm <= ROUNDING * sum(abs(each.weight) * each.norm for each in weighted):
        raise NothingLeft("Nothing is left of this sum: its terms cancel each other, or have no weight.")
    floors = [each.noise_floor for each in meanings]
    noise = None
    if all(floor is not None for floor in floors):
        noise = float(np.abs(factors) @ np.array(floors, np.float64))
    return Sum(meanings[0].space, weighted, vector, norm, noise)
