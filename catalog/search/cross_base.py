"""Neighbors among models of several bases, in a space that spans bases.

What all fine-tunes of a base have in common, and the coordinates in which they differ most, vary between bases and
outweigh what each model learned. A geometry is therefore fitted to the models of each base separately, and every model
is compared relative to the other models of its base (docs/across-bases.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from catalog.auth.viewer import Viewer
from catalog.geometry.repository import GeometryKey, StoredGeometry
from catalog.geometry.transforms import STANDARDIZED
from catalog.index.filters import Filters
from catalog.index.follower import IndexFollower
from catalog.index.space_index import SpaceIndex
from catalog.search.reranking import PerBaseGeometry


@dataclass(frozen=True)
class CrossBaseQuery:
    """The geometry fitted to the query's base, the geometries of all bases, and the number of models that are not
    compared because their bases have too few models for a fit.
    """

    fitted: StoredGeometry
    geometry: PerBaseGeometry
    not_compared: int


def cross_base_query(
    index: IndexFollower, space: SpaceIndex, base: str | None, filters: Filters, viewer: Viewer
) -> CrossBaseQuery | None:
    """The geometries for a query of a model of `base`. None if the base is unknown or has too few models, so that raw
    vectors are compared.
    """
    fitted = _by_base(space.geometries)
    query_base = fitted.get(base or "")
    if query_base is None:
        return None
    bases = [
        (stored.geometry, index.allowed(replace(filters, bases=(name,)), viewer))
        for name, stored in fitted.items()
        if not filters.bases or name in filters.bases
    ]
    candidates = space.count(index.allowed(filters, viewer))
    compared = sum(space.count(allowed) for _, allowed in bases)
    return CrossBaseQuery(query_base, PerBaseGeometry(query_base.geometry, bases), candidates - compared)


def _by_base(geometries: Mapping[GeometryKey, StoredGeometry]) -> dict[str, StoredGeometry]:
    return {key.base: stored for key, stored in geometries.items() if key.kind == STANDARDIZED}
