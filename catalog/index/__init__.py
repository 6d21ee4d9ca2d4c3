"""The index of vectors: the only place that imports faiss."""

from catalog.index.follower import Follower
from catalog.index.space_index import Hits, SpaceIndex

__all__ = ["Follower", "Hits", "SpaceIndex"]
