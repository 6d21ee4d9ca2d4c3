"""When a cosine means something: how near two models come to each other by measurement noise and by chance.

A vector is what a fine-tune did plus noise of norm up to the base's noise floor f. Noise can turn a vector of norm q by
no more than a share f / q of its length, and so adds at most f / q to a cosine. What is left is chance: among n
directions that have nothing to do with the query, the nearest is expected to reach sqrt(2 ln n / d) in d dimensions
(the maximum of n normal variables of variance 1 / d). A neighbour above the sum of the two is confident. That its own
norm clears the floor is a condition of being in the index at all.
"""

from __future__ import annotations

import math


def noise_similarity(noise_floor: float, norm: float, models: int, dimension: int) -> float:
    """The greatest cosine to a query of that norm that noise and chance explain, at most 1."""
    chance = math.sqrt(2 * math.log(max(models, 1)) / dimension)
    return min(1.0, noise_floor / norm + chance)
