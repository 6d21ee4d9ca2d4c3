"""The representations of the scorecard: one file per kind, and one line here."""

from __future__ import annotations

from catalog.errors import UnknownFeature
from workers.encoding.features import FEATURES
from workers.evaluation.representations.base import (
    Dense,
    EvaluationContext,
    Masks,
    PoolVectors,
    Representation,
    Vectors,
)
from workers.evaluation.representations.delta import DeltaFeature
from workers.evaluation.representations.flattened import FlattenedWeights
from workers.evaluation.representations.salient_mask import SalientMask
from workers.evaluation.representations.sentences import OutputSentences

REPRESENTATIONS: dict[str, Representation] = {
    representation.name: representation
    for representation in (
        *(DeltaFeature(name) for name in FEATURES),
        FlattenedWeights(),
        SalientMask(),
        OutputSentences(),
    )
}


def find_representation(name: str) -> Representation:
    """Return a representation by its name. Raises `UnknownFeature`."""
    try:
        return REPRESENTATIONS[name]
    except KeyError:
        raise UnknownFeature(f"Unknown representation {name!r}. Choose from {', '.join(REPRESENTATIONS)}.") from None


__all__ = [
    "REPRESENTATIONS",
    "Dense",
    "EvaluationContext",
    "Masks",
    "PoolVectors",
    "Representation",
    "Vectors",
    "find_representation",
]
