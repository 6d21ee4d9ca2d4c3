"""The cosine that measurement noise and chance explain; a neighbor above it is confident.

A vector is the shift of a fine-tune plus noise, whose norm is at most the base's noise floor f. Noise moves a vector of
norm q by at most a share f / q of its length, and so adds at most f / q to a cosine. The neighbor's own norm is above
the noise floor, or else it would not be in the index.

Chance adds the rest: how near the nearest of n models is that have nothing to do with the query. If their directions
were independent in d dimensions, it would be expected to reach sqrt(2 ln n / d) (the maximum of n normal variables of
variance 1 / d). All fine-tunes of a base share much of their direction, so unrelated ones are far nearer than that. How
near is measured when the space is clustered: nine of ten models are not nearer than `unrelated_similarity` to any model
of another cluster. The formula is used until then, and where the space has no two clusters.
"""

from __future__ import annotations

import math


def chance_similarity(models: int, dimension: int) -> float:
    """The cosine that the nearest of that many independent directions is expected to reach, at most 1."""
    return min(1.0, math.sqrt(2 * math.log(max(models, 1)) / dimension))


def noise_similarity(noise_floor: float, norm: float, chance: float) -> float:
    """The greatest cosine to a query of that norm that noise and chance explain, at most 1. `chance` is the cosine that
    chance alone explains.
    """
    return min(1.0, noise_floor / norm + chance)
