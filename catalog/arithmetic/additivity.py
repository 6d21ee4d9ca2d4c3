"""How well a sum of models' vectors predicts the vector of a model that learned all of it (arXiv 2509.04442, 4.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Residual:
    """Of a model's vector v and a sum s: their cosine; `relative`, |v - s| / |v|; and, with s multiplied by the `scale`
    at which it comes nearest, (v . s) / (s . s), what is left, `least` = |v - scale s| / |v| = sqrt(1 - cosine^2).
    """

    cosine: float
    relative: float
    least: float
    scale: float


def residual(vector: np.ndarray, total: np.ndarray) -> Residual:
    """Both (d,), neither of them zero."""
    norm, length = float(np.linalg.norm(vector)), float(np.linalg.norm(total))
    cosine = min(1.0, max(-1.0, float(vector @ total) / (norm * length)))
    relative = float(np.linalg.norm(vector - total)) / norm
    return Residual(cosine, relative, math.sqrt(1 - cosine**2), cosine * norm / length)
