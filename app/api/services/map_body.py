"""The map as bytes. The drawing is by far most of them and is packed once; only what came since is added each time."""

from __future__ import annotations

import json
import threading
import zlib
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from catalog.maps.view import SIDE, Sheet, View

GZIP = 31  # zlib's wbits for a gzip stream with the largest window
KEPT = 4  # bodies that a process keeps ready


@dataclass(frozen=True, eq=False)
class _Begun:
    """A gzip stream that ends within an object: its bytes so far, and the compressor that goes on from there."""

    sheet: Sheet
    packed: bytes
    compressor: Any

    @classmethod
    def of(cls, view: View) -> _Begun:
        compressor = zlib.compressobj(wbits=GZIP)
        text = json.dumps(_drawing(view), separators=(",", ":"), ensure_ascii=False)
        packed = compressor.compress(text.removesuffix("}").encode())
        return cls(view.sheet, packed + compressor.flush(zlib.Z_SYNC_FLUSH), compressor)

    def ended(self, view: View) -> bytes:
        compressor = self.compressor.copy()
        text = json.dumps(_since(view), separators=(",", ":"), ensure_ascii=False)
        return self.packed + compressor.compress(f",{text.removeprefix('{')}".encode()) + compressor.flush()


@dataclass
class MapBodies:
    """The last bodies of a process, by space."""

    _begun: dict[str, _Begun] = field(default_factory=dict)
    _ended: dict[str, tuple[View, bytes]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def gzipped(self, view: View) -> bytes:
        """The JSON of a view as a gzip stream."""
        key = view.standing.space_key
        with self._lock:
            if key in self._ended and self._ended[key][0] is view:
                return self._ended[key][1]
            begun = self._begun.pop(key, None)
            if begun is None or begun.sheet is not view.sheet:
                begun = _Begun.of(view)
            self._begun[key] = begun
            self._ended[key] = (view, begun.ended(view))
            if len(self._begun) > KEPT:
                oldest = next(iter(self._begun))
                del self._begun[oldest], self._ended[oldest]
            return self._ended[key][1]


def plain(gzipped: bytes) -> bytes:
    """For who takes no gzip."""
    return zlib.decompress(gzipped, GZIP)


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
