"""The map as bytes. The drawing is by far most of them: its JSON is written once, and what came since each time."""

from __future__ import annotations

import gzip
import json
import threading
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from catalog.maps.view import SIDE, View

LEVEL = 4  # of zlib's nine: a third of the time of the default, 6, for a twelfth more bytes
KEPT = 4  # bodies that a process keeps ready


@dataclass(frozen=True, eq=False)
class _Body:
    view: View
    drawing: str  # the JSON of the view's sheet
    packed: bytes

    @classmethod
    def of(cls, view: View, last: _Body | None) -> _Body:
        """The body of a view; `last` is that of an earlier one of the same space."""
        same_sheet = last is not None and last.view.sheet is view.sheet
        drawing = last.drawing if last is not None and same_sheet else _json(_drawing(view))
        text = f"{drawing.removesuffix('}')},{_json(_since(view)).removeprefix('{')}"
        return cls(view, drawing, gzip.compress(text.encode(), LEVEL, mtime=0))


@dataclass
class MapBodies:
    """The last bodies of a process, by space."""

    _bodies: dict[str, _Body] = field(default_factory=dict)  # the most used last
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __contains__(self, space_key: str) -> bool:
        return space_key in self._bodies

    def gzipped(self, view: View) -> bytes:
        """The JSON of a view, compressed with gzip."""
        key = view.standing.space_key
        with self._lock:
            body = self._bodies.pop(key, None)
            if body is None or body.view is not view:
                body = _Body.of(view, body)
            self._bodies[key] = body
            if len(self._bodies) > KEPT:
                del self._bodies[next(iter(self._bodies))]
            return body.packed


def plain(gzipped: bytes) -> bytes:
    """For who takes no gzip."""
    return gzip.decompress(gzipped)


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False)


def _drawing(view: View) -> dict[str, Any]:
    sheet = view.sheet
    parted = (repo_id.split("/", 1) for repo_id in sheet.repo_ids)
    owners = [[owner, [name for _, name in those]] for owner, those in groupby(parted, key=lambda part: part[0])]
    return {
        "space": view.standing.space_key,
        "version": view.standing.map_id,
        "side": SIDE,
        "neighbours": sheet.neighbours,
        "mean_distortion": round(sheet.mean_distortion, 6),
        "clusters": [vars(cluster) for cluster in sheet.clusters],
        "points": {
            "owners": owners,
            "x": sheet.places[:, 0].tolist(),
            "y": sheet.places[:, 1].tolist(),
            "cluster": sheet.cluster.tolist(),
            "distortion": sheet.distortion.tolist(),
        },
    }


def _since(view: View) -> dict[str, Any]:
    x, y = view.places.T.tolist()
    return {"placed": {"repo_ids": view.repo_ids, "x": x, "y": y, "cluster": view.cluster}, "gone": view.gone}
