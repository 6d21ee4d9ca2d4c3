"""The map as gzipped JSON. The JSON of the layout, which is most of it, is serialized once per layout."""

from __future__ import annotations

import gzip
import json
import threading
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from catalog.maps.view import SIDE, MapView

COMPRESSION_LEVEL = 4  # takes a third of the time of the default, 6, for a twelfth more bytes
MAX_BODIES = 4  # per process


@dataclass(frozen=True, eq=False)
class _Body:
    view: MapView
    layout: str  # the JSON of the view's layout
    compressed: bytes

    @classmethod
    def from_view(cls, view: MapView, previous: _Body | None) -> _Body:
        """The body of a view. `previous` is the body of an earlier view of the same space."""
        same_layout = previous is not None and previous.view.layout is view.layout
        layout = previous.layout if previous is not None and same_layout else _json(_layout_fields(view))
        text = f"{layout.removesuffix('}')},{_json(_change_fields(view)).removeprefix('{')}"
        return cls(view, layout, gzip.compress(text.encode(), COMPRESSION_LEVEL, mtime=0))


@dataclass
class MapBodies:
    """The latest body of each space."""

    _bodies: dict[str, _Body] = field(default_factory=dict)  # by space key, the most recently used last
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __contains__(self, space_key: str) -> bool:
        return space_key in self._bodies

    def gzipped(self, view: MapView) -> bytes:
        """The JSON of a view, compressed with gzip."""
        key = view.version.space_key
        with self._lock:
            body = self._bodies.pop(key, None)
            if body is None or body.view is not view:
                body = _Body.from_view(view, body)
            self._bodies[key] = body
            if len(self._bodies) > MAX_BODIES:
                del self._bodies[next(iter(self._bodies))]
            return body.compressed


def decompress(gzipped: bytes) -> bytes:
    """The body for a client that does not accept gzip."""
    return gzip.decompress(gzipped)


def _json(fields: dict[str, Any]) -> str:
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False)


def _layout_fields(view: MapView) -> dict[str, Any]:
    layout = view.layout
    split_ids = (repo_id.split("/", 1) for repo_id in layout.repo_ids)
    owners = [[owner, [name for _, name in repos]] for owner, repos in groupby(split_ids, key=lambda parts: parts[0])]
    return {
        "space": view.version.space_key,
        "version": view.version.map_id,
        "side": SIDE,
        "neighbors": layout.neighbors,
        "mean_distortion": round(layout.mean_distortion, 6),
        "clusters": [vars(cluster) for cluster in layout.clusters],
        "points": {
            "owners": owners,
            "x": layout.coordinates[:, 0].tolist(),
            "y": layout.coordinates[:, 1].tolist(),
            "cluster": layout.cluster.tolist(),
            "distortion": layout.distortion.tolist(),
        },
    }


def _change_fields(view: MapView) -> dict[str, Any]:
    """The fields for the changes since the layout."""
    x, y = view.coordinates.T.tolist()
    return {"arrivals": {"repo_ids": view.repo_ids, "x": x, "y": y, "cluster": view.cluster}, "removed": view.removed}
