"""How well a sum of models' vectors predicts the vector of a model that learned all of it (arXiv 2509.04442, 4.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Residual:
    """How well a sum s predicts a model's vector v: their `cosine`; `relative`, |v - s| / |v|; the `scale` by which s
    comes nearest to v, (v . s) / (s . s); and the residual at that scale, `min_relative` = |v - scale s| / |v| =
    sqrt(1 - cosine^2).
    """

    cosine: float
    relative: float
    min_relative: float
    scale: float


def residual(vector: np.ndarray, total: np.ndarray) -> Residual:
    """The residual of two vectors (d,), neither of which is zero."""
    norm, length = float(np.linalg.norm(vector)), float(np.linalg.norm(total))
    cosine = min(1.0, max(-1.0, float(vector @ total) / (norm * length)))
    relative = float(np.linalg.norm(vector - total)) / norm
    return Residual(cosine, relative, math.sqrt(1 - cosine**2), cosine * norm / length)
