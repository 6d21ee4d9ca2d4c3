"""The index of vectors: the only place that imports faiss."""

from catalog.index.filters import NO_FILTERS, Filters
from catalog.index.follower import Follower, SpaceReport
from catalog.index.picking import Across, Limits, Page, Pick, pick
from catalog.index.space_index import Hits, SpaceIndex, checked

__all__ = [
    "NO_FILTERS", "Across", "Filters", "Follower", "Hits", "Limits", "Page", "Pick", "SpaceIndex", "SpaceReport",
    "checked", "pick",
]  # fmt: skip
