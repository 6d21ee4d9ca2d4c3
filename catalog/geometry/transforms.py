"""Maps that bring out how vectors of one space differ, fitted on its vectors without any label.

Every geometry is one map: vectors are scaled by a power of their norm, or each of several blocks by its own; a centre
is subtracted, coordinates are scaled, and the parts along some orthonormal axes are multiplied by gains, the rest by
another. Cosines are then taken of what comes out. Vectors that are scaled by their norm, so that one loud model does
not move the centre, leave the map unchanged when they are multiplied by a number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
TINY = 1e-12
ALIKE = 1e-6  # a deviation of unit vectors that rounding explains
RAW = "raw"
SAMPLE = 4_000  # vectors that a geometry is fitted to at most
MOST_AXES = 256
LEAST_MODELS = 24  # that a geometry must have been fitted to before searches use it unasked
LEAST_OF_A_BASE = 5  # models of a base that its own geometry is fitted to
STANDARDISED = "standardised"
DEFAULTS_BY_FEATURE = {"delta_layers": "softened", "delta_activations": "centred"}


@dataclass(frozen=True, eq=False)
class Geometry:
    """`rest * y + (gains - rest) * (y along axes)`, where `y = (x / |x|**norm_power - centre) * scale`, and |x| is the
    norm of the block of `d / blocks` coordinates that a coordinate is in.
    """

    norm_power: float = 0.0
    blocks: int = 1
    centre: Floats | None = None  # (d,)
    scale: Floats | None = None  # (d,)
    axes: Floats | None = None  # (k, d), orthonormal
    gains: Floats | None = None  # (k,)
    rest: float = 1.0

    def apply(self, vectors: Floats) -> Floats:
        """(n, d) -> (n, d) float32; or (n, k), coordinates along the axes, where nothing of the rest is kept."""
        moved = self.placed(vectors)
        if self.axes is None or self.gains is None:
            return moved
        along = moved @ self.axes.T  # (n, k)
        if self.rest == 0:
            return along * self.gains
        return self.rest * moved + (along * (self.gains - np.float32(self.rest))) @ self.axes

    def placed(self, vectors: Floats) -> Floats:
        """What the axes are fitted to, (n, d) float32."""
        moved: Floats = np.asarray(vectors, np.float32)
        if self.norm_power:
            parted = moved.reshape(len(moved), self.blocks, -1)
            norms = np.linalg.norm(parted, axis=2, keepdims=True)
            moved = (parted / np.maximum(norms, TINY) ** np.float32(self.norm_power)).reshape(moved.shape)
        if self.centre is not None:
            moved = moved - self.centre
        return np.asarray(moved if self.scale is None else moved * self.scale, np.float32)

    def toward(self, moved: Floats) -> Floats:
        """The direction (d,) in which vectors lie whose images have a great inner product with `moved` (d,), which lies
        where vectors are moved to. Of a geometry that only shifts and scales unit vectors.
        """
        return moved if self.scale is None else moved * self.scale

    def to_bytes(self) -> bytes:
        """As an npz; what is None is left out."""
        held = {name: value for name, value in vars(self).items() if value is not None}
        file = BytesIO()
        np.savez(file, **held)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        with np.load(BytesIO(data)) as held:
            values: dict[str, Any] = {name: held[name] if held[name].ndim else held[name].item() for name in held.files}
        return cls(**values)

    def along(self, axes: Floats, gains: Floats, rest: float) -> Self:
        return replace(self, axes=axes, gains=gains.astype(np.float32), rest=rest)


def raw(vectors: Floats) -> Geometry:
    """As they are."""
    return Geometry()


def centred(vectors: Floats, norm_power: float = 0.0, blocks: int = 1) -> Geometry:
    """Less the space's mean; with `norm_power` 1 less the mean direction."""
    start = Geometry(norm_power, blocks)
    return replace(start, centre=start.placed(vectors).mean(axis=0))


def standardised(vectors: Floats, norm_power: float = 1.0, power: float = 1.0) -> Geometry:
    """Every coordinate, centred, divided by that power of its standard deviation."""
    start = centred(vectors, norm_power)
    deviation = start.placed(vectors).std(axis=0)
    return replace(start, scale=(np.maximum(deviation, TINY) ** -power).astype(np.float32))


def all_but_the_top(vectors: Floats, norm_power: float = 1.0, top: int = 1) -> Geometry:
    """Centred, less the parts along the first principal axes (Mu and Viswanath 2018, arXiv 1702.01417)."""
    start = centred(vectors, norm_power)
    axes, _ = principal(start.placed(vectors))
    return start.along(axes[:top], np.zeros(len(axes[:top])), 1.0)


def whitened(vectors: Floats, norm_power: float = 1.0, shrinkage: float = 0.5) -> Geometry:
    """Centred, divided by the root of a covariance shrunk towards its mean variance (after Ledoit and Wolf 2004)."""
    start = centred(vectors, norm_power)
    axes, variances = principal(start.placed(vectors))
    level = shrinkage * variances.sum() / vectors.shape[1]
    return start.along(axes, ((1 - shrinkage) * variances + level) ** -0.5, float(level) ** -0.5)


def leading(
    vectors: Floats, norm_power: float = 1.0, share: float = 0.8, power: float = 0.0, blocks: int = 1
) -> Geometry:
    """Centred, and of the principal axes only the first that hold `share` of the variance.

    Gains are a power of each axis's variance: 0 keeps lengths, -0.5 whitens, 0.5 brings out the strong axes.
    """
    start = centred(vectors, norm_power, blocks)
    axes, variances = principal(start.placed(vectors))
    count = min(len(axes), MOST_AXES, int(np.searchsorted(np.cumsum(variances), share * variances.sum()) + 1))
    gains = np.asarray((variances[:count] / variances[0]) ** power, np.float32)
    return start.along(axes[:count], gains, 0.0)


def denoised(
    vectors: Floats, norm_power: float = 1.0, level: float = 0.5, floor: float = 0.0, blocks: int = 1
) -> Geometry:
    """Centred, each principal axis by the share of its variance that is above the noise.

    The noise is taken to be `level` of the mean variance of an axis; the gain of an axis of variance v is then that of
    Wiener's filter, (v - noise) / v, or `floor` where that is more, also for what lies along no axis.
    """
    start = centred(vectors, norm_power, blocks)
    axes, variances = principal(start.placed(vectors))
    gains = 1 - level * variances.mean() / variances
    count = min(int((gains > floor).sum()), MOST_AXES)
    return start.along(axes[:count], gains[:count], floor)


def softened(vectors: Floats, norm_power: float = 1.0, blocks: int = 1) -> Geometry:
    """As `denoised`, so carefully that models and domains which come after the fit are found as well as before."""
    return denoised(vectors, norm_power, level=0.25, floor=0.5, blocks=blocks)


def principal(centred_vectors: Floats) -> tuple[Floats, Floats]:
    """Axes (k, d), the strongest first, and the variances along them (k,), without those that hold nothing."""
    wide = centred_vectors.astype(np.float64)
    n, d = wide.shape
    squares, turned = np.linalg.eigh(wide @ wide.T if n <= d else wide.T @ wide)  # the smaller one; ascending
    kept = squares > 1e-9 * squares.sum()
    squares, turned = squares[kept][::-1], turned[:, kept][:, ::-1]
    axes = (wide.T @ turned / np.sqrt(squares)).T if n <= d else turned.T
    return axes.astype(np.float32), (squares / n).astype(np.float32)


GEOMETRIES: dict[str, Callable[..., Geometry]] = {
    each.__name__: each for each in (raw, centred, standardised, all_but_the_top, whitened, leading, denoised)
}

# what searches offer beside raw vectors
SERVED: dict[str, Callable[..., Geometry]] = {"centred": centred, "softened": softened, "denoised": denoised}
BLOCKS = {"delta_layers": 2}  # features whose vectors are put together of parts


def fitted(unit: Floats, feature: str, seed: int = 0) -> dict[str, Geometry]:
    """The geometries that searches offer, by kind, of a feature's unit vectors (n, d); a seeded sample stands for very
    many.
    """
    if len(unit) < 2:
        return {}
    rows = _sample(unit, seed)
    return {kind: fit(rows, norm_power=1.0, blocks=BLOCKS.get(feature, 1)) for kind, fit in SERVED.items()}


def fitted_to_base(unit: Floats, seed: int = 0) -> Geometry | None:
    """What the unit vectors (n, d) of one base's models are compared in with those of other bases; None where they are
    too few, or all alike.
    """
    if len(unit) < LEAST_OF_A_BASE:
        return None
    rows = _sample(unit, seed)
    return standardised(rows) if rows.std(axis=0).max() > ALIKE else None


def _sample(unit: Floats, seed: int) -> Floats:
    if len(unit) > SAMPLE:
        chosen = np.random.default_rng(seed).choice(len(unit), SAMPLE, replace=False)
        unit = unit[np.sort(chosen)]
    return unit.astype(np.float32, copy=False)
