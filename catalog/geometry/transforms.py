"""Geometries: transforms that bring out how the vectors of one space differ, fitted to its vectors without labels.

All geometries are special cases of one transform: vectors are divided by a power of their norm, or each of several
blocks by a power of its own norm; a center is subtracted and coordinates are scaled; the components along some
orthonormal axes are multiplied by gains, and the rest by another number. Cosines are then computed from the results.
With a norm power of 1 the length of a vector does not matter, so one model with a large norm does not move the center.
`benchmarks/geometries.py` compares these geometries with others; docs/representation.md has the results.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from io import BytesIO
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

RAW = "raw"  # vectors as they are
CENTERED = "centered"
SOFTENED = "softened"
STANDARDIZED = "standardized"  # fitted to the models of one base, for cross-base queries

EPSILON = 1e-12
MIN_DEVIATION = 1e-6  # of a coordinate of unit vectors; rounding explains less
MIN_RELATIVE_DEVIATION = 0.1  # of the median; a smaller one of few models is more often chance than a property
MAX_SAMPLE = 4_000  # vectors that a geometry is fitted to
MAX_AXES = 256
MIN_MODELS = 24  # below which searches compare raw vectors by default
MIN_MODELS_PER_BASE = 5
NOISE_LEVEL = 0.25  # of the mean variance of an axis
MIN_GAIN = 0.5


class GeometryChoice(StrEnum):
    """The geometries that a query may choose."""

    DEFAULT = "default"  # the best by measurement for the space's feature, once it is fitted to enough models
    RAW = "raw"


@dataclass(frozen=True, eq=False)
class Geometry:
    """`rest * y + (gains - rest) * (y along axes)`, where `y = (x / |x|**norm_power - center) * scale`, and |x| is the
    norm of the block of `d / blocks` coordinates that a coordinate is in.
    """

    norm_power: float = 0.0
    blocks: int = 1
    center: Floats | None = None  # (d,)
    scale: Floats | None = None  # (d,)
    axes: Floats | None = None  # (k, d), orthonormal
    gains: Floats | None = None  # (k,)
    rest: float = 1.0

    def apply(self, vectors: Floats) -> Floats:
        """Transform vectors (n, d): float32 (n, d), or if `rest` is 0, the coordinates along the axes, (n, k)."""
        shifted = self.shift_and_scale(vectors)
        if self.axes is None or self.gains is None:
            return shifted
        coordinates = shifted @ self.axes.T  # (n, k)
        if self.rest == 0:
            return coordinates * self.gains
        return self.rest * shifted + (coordinates * (self.gains - np.float32(self.rest))) @ self.axes

    def shift_and_scale(self, vectors: Floats) -> Floats:
        """The first part of the transform, which the axes are fitted to: (n, d) -> (n, d) float32."""
        shifted: Floats = np.asarray(vectors, np.float32)
        if self.norm_power:
            by_block = shifted.reshape(len(shifted), self.blocks, -1)
            norms = np.linalg.norm(by_block, axis=2, keepdims=True)
            shifted = (by_block / np.maximum(norms, EPSILON) ** np.float32(self.norm_power)).reshape(shifted.shape)
        if self.center is not None:
            shifted = shifted - self.center
        return np.asarray(shifted if self.scale is None else shifted * self.scale, np.float32)

    def preimage_direction(self, image: Floats) -> Floats:
        """The direction (d,) whose inner products with unit vectors rank them as `image` (d,) ranks their images.

        Only for a geometry that shifts and scales unit vectors, without axes.
        """
        return image if self.scale is None else image * self.scale

    def with_axes(self, axes: Floats, gains: Floats, rest: float) -> Self:
        return replace(self, axes=axes, gains=gains.astype(np.float32), rest=rest)

    def to_bytes(self) -> bytes:
        """The geometry as an npz file. Fields that are None are left out."""
        fields = {name: value for name, value in vars(self).items() if value is not None}
        file = BytesIO()
        np.savez(file, **fields)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        with np.load(BytesIO(data)) as file:
            fields: dict[str, Any] = {name: file[name] if file[name].ndim else file[name].item() for name in file.files}
        return cls(**fields)


def centered(vectors: Floats, norm_power: float = 1.0, blocks: int = 1) -> Geometry:
    """Subtract the mean of the space's vectors, or with `norm_power` 1 their mean direction."""
    scaled = Geometry(norm_power, blocks)
    return replace(scaled, center=scaled.shift_and_scale(vectors).mean(axis=0))


def standardized(vectors: Floats, norm_power: float = 1.0) -> Geometry:
    """Center the vectors and divide each coordinate by its standard deviation.

    A coordinate in which the vectors agree is divided by a tenth of the median deviation (of the coordinates in which
    they differ): by its own, it would decide every cosine.
    """
    shifted = centered(vectors, norm_power)
    deviation = shifted.shift_and_scale(vectors).std(axis=0)
    differing = deviation[deviation > EPSILON]
    floor = MIN_RELATIVE_DEVIATION * np.median(differing) if len(differing) else EPSILON
    return replace(shifted, scale=(1 / np.maximum(deviation, floor)).astype(np.float32))


def softened(
    vectors: Floats, norm_power: float = 1.0, blocks: int = 1, *, level: float = NOISE_LEVEL, floor: float = MIN_GAIN
) -> Geometry:
    """Center the vectors and damp each principal axis by the share of its variance that is noise.

    The noise variance is assumed to be `level` times the mean variance of an axis. The gain of an axis of variance v is
    that of the Wiener filter, (v - noise) / v, or `floor` if that is greater. Components outside the axes are
    multiplied by `floor`. The defaults damp so little that models and domains that arrive after the fit are still
    found.
    """
    shifted = centered(vectors, norm_power, blocks)
    axes, variances = principal_axes(shifted.shift_and_scale(vectors))
    gains = 1 - level * variances.mean() / variances
    count = min(int((gains > floor).sum()), MAX_AXES)
    return shifted.with_axes(axes[:count], gains[:count], floor)


def principal_axes(centered_vectors: Floats) -> tuple[Floats, Floats]:
    """Axes (k, d), strongest first, and the variances along them (k,); axes without variance are left out."""
    rows = centered_vectors.astype(np.float64)
    n, d = rows.shape
    squares, eigenvectors = np.linalg.eigh(rows @ rows.T if n <= d else rows.T @ rows)  # the smaller one; ascending
    nonzero = squares > 1e-9 * squares.sum()
    squares, eigenvectors = squares[nonzero][::-1], eigenvectors[:, nonzero][:, ::-1]
    axes = (rows.T @ eigenvectors / np.sqrt(squares)).T if n <= d else eigenvectors.T
    return axes.astype(np.float32), (squares / n).astype(np.float32)


FITS: dict[str, Callable[..., Geometry]] = {CENTERED: centered, SOFTENED: softened}
DEFAULT_KINDS = {"delta_layers": SOFTENED, "delta_activations": CENTERED}
BLOCKS = {"delta_layers": 2}  # features whose vectors are concatenated from parts


def default_kind(feature: str) -> str:
    """The kind of geometry that searches in spaces of this feature use by default; `RAW` if no other was better."""
    return DEFAULT_KINDS.get(feature, RAW)


def fit_default(unit: Floats, feature: str, seed: int = 0) -> Geometry | None:
    """Fit the default geometry of a feature to unit vectors (n, d), or to a seeded sample of more than `MAX_SAMPLE`.

    Returns None if the default is raw or there are fewer than two vectors.
    """
    kind = default_kind(feature)
    if kind == RAW or len(unit) < 2:
        return None
    return FITS[kind](_sample(unit, seed), norm_power=1.0, blocks=BLOCKS.get(feature, 1))


def fit_to_base(unit: Floats, seed: int = 0) -> Geometry | None:
    """Fit the geometry of cross-base queries to the unit vectors (n, d) of one base's models.

    Returns None if there are fewer than `MIN_MODELS_PER_BASE`, or all are alike.
    """
    if len(unit) < MIN_MODELS_PER_BASE:
        return None
    rows = _sample(unit, seed)
    return standardized(rows) if rows.std(axis=0).max() > MIN_DEVIATION else None


def _sample(unit: Floats, seed: int) -> Floats:
    if len(unit) > MAX_SAMPLE:
        chosen = np.random.default_rng(seed).choice(len(unit), MAX_SAMPLE, replace=False)
        unit = unit[np.sort(chosen)]
    return unit.astype(np.float32, copy=False)
