"""Neighbours among models of several bases, in a space that spans them.

What all fine-tunes of a base share, and which coordinates its models move much, differs from base to base and outweighs
what they learned. So a geometry is fitted to the models of each base alone, and a model is compared as it stands among
those of its own (docs/across-bases.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from catalog.auth.viewer import Viewer
from catalog.errors import GeometryNotFitted
from catalog.geometry.repository import Fitted, Place
from catalog.geometry.transforms import LEAST_OF_A_BASE, RAW, STANDARDISED
from catalog.index.filters import Filters
from catalog.index.follower import Follower
from catalog.index.space_index import SpaceIndex
from catalog.search.reranking import Across


@dataclass(frozen=True)
class Lens:
    """What the query is compared in, that as it was fitted to its own base, and how many models are left out because
    too few of their bases are in.
    """

    fitted: Fitted
    geometry: Across
    left_out: int


def lens(
    index: Follower, space: SpaceIndex, base: str | None, kind: str | None, filters: Filters, viewer: Viewer
) -> Lens | None:
    """None where vectors are compared as they are: that was asked for (`kind`), or a query of no known `base`, or of
    one with too few models.

    Raises `GeometryNotFitted`, where a kind was asked for.
    """
    fitted = _of_bases(space.geometries)
    own = fitted.get(base or "")
    if kind == RAW or (kind is None and own is None):
        return None
    if kind not in (None, STANDARDISED) or own is None:
        raise GeometryNotFitted(
            f"No geometry {kind!r} has been fitted to the models of {base or 'no base'} in this space. There is "
            f"{STANDARDISED!r} for each base with {LEAST_OF_A_BASE} models, once the clusters of the space were found. "
            "Ask with `geometry=raw` meanwhile."
        )
    parts = [
        (each.geometry, index.allowed(replace(filters, bases=(name,)), viewer))
        for name, each in fitted.items()
        if not filters.bases or name in filters.bases
    ]
    asked = space.count(index.allowed(filters, viewer))
    compared = sum(space.count(allowed) for _, allowed in parts)
    return Lens(own, Across(own.geometry, parts), asked - compared)


def _of_bases(geometries: Mapping[Place, Fitted]) -> dict[str, Fitted]:
    return {place.base: each for place, each in geometries.items() if place.kind == STANDARDISED}
