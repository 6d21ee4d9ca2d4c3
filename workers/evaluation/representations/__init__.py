"""The lines of the scorecard: one file a kind, one line here."""

from __future__ import annotations

from catalog.errors import UnknownFeature
from workers.encoding.features import FEATURES
from workers.evaluation.representations.base import Dense, Made, Masks, Representation, Setting, Vectors
from workers.evaluation.representations.delta import DeltaFeature
from workers.evaluation.representations.flattened import FlattenedWeights
from workers.evaluation.representations.salient_mask import SalientMask
from workers.evaluation.representations.sentences import OutputSentences

REPRESENTATIONS: dict[str, Representation] = {
    each.name: each
    for each in (*(DeltaFeature(name) for name in FEATURES), FlattenedWeights(), SalientMask(), OutputSentences())
}


def find_representation(name: str) -> Representation:
    """Raises `UnknownFeature`."""
    try:
        return REPRESENTATIONS[name]
    except KeyError:
        raise UnknownFeature(f"There is no representation {name!r}; there are {', '.join(REPRESENTATIONS)}.") from None


__all__ = [
    "REPRESENTATIONS",
    "Dense",
    "Made",
    "Masks",
    "Representation",
    "Setting",
    "Vectors",
    "find_representation",
]
