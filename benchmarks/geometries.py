"""The geometries that searches do not use, and those that they use with other parameters, for the studies.

A geometry is a `catalog.geometry.transforms.Geometry`, fitted to the vectors of a space without labels. Why searches
use the ones they do is in docs/representation.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from catalog.geometry.transforms import (
    BLOCKS,
    CENTERED,
    MAX_AXES,
    SOFTENED,
    Floats,
    Geometry,
    centered,
    principal_axes,
    softened,
)
from catalog.geometry.transforms import standardized as standardized_by_deviation

Fit = Callable[..., Geometry]
DENOISED = "denoised"


def raw(vectors: Floats) -> Geometry:
    """Leave vectors as they are."""
    return Geometry()


def standardized(vectors: Floats, norm_power: float = 1.0, power: float = 1.0) -> Geometry:
    """Center the vectors and divide each coordinate by a power of its standard deviation."""
    geometry = standardized_by_deviation(vectors, norm_power)
    assert geometry.scale is not None
    return replace(geometry, scale=geometry.scale**power)


def all_but_the_top(vectors: Floats, norm_power: float = 1.0, top: int = 1) -> Geometry:
    """Center the vectors and remove the first principal axes (Mu and Viswanath 2018, arXiv 1702.01417)."""
    shifted = centered(vectors, norm_power)
    axes, _ = principal_axes(shifted.shift_and_scale(vectors))
    return shifted.with_axes(axes[:top], np.zeros(len(axes[:top])), 1.0)


def whitened(vectors: Floats, norm_power: float = 1.0, shrinkage: float = 0.5) -> Geometry:
    """Center the vectors and divide by the root of a covariance that is shrunk toward its mean variance (after Ledoit
    and Wolf 2004).
    """
    shifted = centered(vectors, norm_power)
    axes, variances = principal_axes(shifted.shift_and_scale(vectors))
    level = shrinkage * variances.sum() / vectors.shape[1]
    return shifted.with_axes(axes, ((1 - shrinkage) * variances + level) ** -0.5, float(level) ** -0.5)


def leading(
    vectors: Floats, norm_power: float = 1.0, share: float = 0.8, power: float = 0.0, blocks: int = 1
) -> Geometry:
    """Center the vectors and keep only the first principal axes, those that hold `share` of the variance.

    Gains are a power of each axis's variance: 0 keeps lengths, -0.5 whitens, 0.5 amplifies the strong axes.
    """
    shifted = centered(vectors, norm_power, blocks)
    axes, variances = principal_axes(shifted.shift_and_scale(vectors))
    count = min(len(axes), MAX_AXES, int(np.searchsorted(np.cumsum(variances), share * variances.sum()) + 1))
    gains = np.asarray((variances[:count] / variances[0]) ** power, np.float32)
    return shifted.with_axes(axes[:count], gains, 0.0)


def denoised(
    vectors: Floats, norm_power: float = 1.0, level: float = 0.5, floor: float = 0.0, blocks: int = 1
) -> Geometry:
    """As `softened`, with twice the noise and no least gain."""
    return softened(vectors, norm_power, blocks, level=level, floor=floor)


GEOMETRIES: dict[str, Fit] = {
    fit.__name__: fit for fit in (raw, centered, standardized, all_but_the_top, whitened, leading, denoised)
}
# among which the defaults of searches were chosen
SERVABLE: dict[str, Fit] = {CENTERED: centered, SOFTENED: softened, DENOISED: denoised}


def fit_servable(unit: Floats, feature: str) -> dict[str, Geometry]:
    """Fit each geometry in `SERVABLE` to a feature's unit vectors (n, d), as searches fit their default."""
    return {kind: fit(unit, norm_power=1.0, blocks=BLOCKS.get(feature, 1)) for kind, fit in SERVABLE.items()}
