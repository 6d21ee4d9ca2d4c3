"""The Delta-X family: one file a feature, one line here."""

from __future__ import annotations

from catalog.errors import UnknownFeature
from workers.encoding.features.base import Feature
from workers.encoding.features.delta_activations import DeltaActivations

FEATURES: dict[str, Feature] = {feature.name: feature for feature in (DeltaActivations(),)}


def find_feature(name: str) -> Feature:
    """Raises `UnknownFeature`."""
    try:
        return FEATURES[name]
    except KeyError:
        raise UnknownFeature(f"There is no feature {name!r}; there are {', '.join(FEATURES)}.") from None


__all__ = ["FEATURES", "Feature", "find_feature"]
