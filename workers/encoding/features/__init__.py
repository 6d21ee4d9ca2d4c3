"""The registry of the Delta-X features: each is one file in this folder and one line here."""

from __future__ import annotations

from catalog.errors import UnknownFeature
from workers.encoding.features.base import Feature
from workers.encoding.features.delta_activations import DeltaActivations
from workers.encoding.features.delta_layers import DeltaLayers
from workers.encoding.features.delta_logits import DeltaLogits
from workers.encoding.features.delta_meaning import DeltaMeaning
from workers.encoding.features.delta_weighted_activations import DeltaWeightedActivations

FEATURES: dict[str, Feature] = {
    feature.name: feature
    for feature in (
        DeltaActivations(),
        DeltaWeightedActivations(),
        DeltaLayers(),
        DeltaLogits(),
        DeltaMeaning(),
    )
}


def find_feature(name: str) -> Feature:
    """Raises `UnknownFeature`."""
    try:
        return FEATURES[name]
    except KeyError:
        raise UnknownFeature(f"There is no feature {name!r}; the features are {', '.join(FEATURES)}.") from None


__all__ = ["FEATURES", "Feature", "find_feature"]
