"""The cosine that measurement noise and chance explain; a neighbor above it is confident.

A vector is the shift of a fine-tune plus noise, whose norm is at most the base's noise floor f. Noise moves a vector of
norm q by at most a share f / q of its length, and so adds at most f / q to a cosine. Chance adds the rest: among n
directions that are unrelated to the query, the nearest is expected to reach sqrt(2 ln n / d) in d dimensions (the
maximum of n normal variables of variance 1 / d). The bound is the sum of the two. The neighbor's own norm is above the
noise floor, or else it would not be in the index.
"""

from __future__ import annotations

import math


def noise_similarity(noise_floor: float, norm: float, models: int, dimension: int) -> float:
    """The greatest cosine to a query of that norm that noise and chance explain, at most 1."""
    chance = math.sqrt(2 * math.log(max(models, 1)) / dimension)
    return min(1.0, noise_floor / norm + chance)
