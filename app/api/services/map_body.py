"""The map as gzipped JSON. The JSON of the layout, which is most of it, is serialized once per layout."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from threading import Lock
from typing import Any

import numpy as np

from catalog.maps.view import SIDE, MapVersion, MapView

COMPRESSION_LEVEL = 4  # takes a third of the time of the default, 6, for a twelfth more bytes
MAX_BODIES = 4  # per process
PIECE = 5_000  # entries of an array that are serialized at once
THREADS = 2  # that make bodies: a map whose index is being loaded does not hold up the others
PATIENCE = 1.0  # seconds until the previous body is served in place of one that is still being made


@dataclass(frozen=True, eq=False)
class Body:
    """A view as gzipped JSON (`compressed`). `layout` is the JSON of the view's layout."""

    view: MapView
    layout: str
    compressed: bytes

    @classmethod
    def from_view(cls, view: MapView, previous: Body | None) -> Body:
        """The body of a view. `previous` is the body of an earlier view of the same space."""
        same_layout = previous is not None and previous.view.layout is view.layout
        layout = previous.layout if previous is not None and same_layout else _layout_json(view)
        text = f"{layout.removesuffix('}')},{_changes_json(view).removeprefix('{')}"
        return cls(view, layout, gzip.compress(text.encode(), COMPRESSION_LEVEL, mtime=0))


class MapBodies:
    """The latest body of each space. At most one thread makes the body of a space, by `create_view`; the requests that
    wait for it are coroutines, so they take no thread from other requests.
    """

    def __init__(self, create_view: Callable[[MapVersion], MapView]) -> None:
        self._create_view = create_view
        self._bodies: OrderedDict[str, Body] = OrderedDict()  # by space key, the most recently used last
        self._making: dict[str, Future[Body]] = {}
        self._lock = Lock()
        self._threads = ThreadPoolExecutor(THREADS, "map")

    def __contains__(self, space_key: str) -> bool:
        return space_key in self._bodies

    async def get(self, version: MapVersion) -> Body:
        """The body of this version. If it takes long to make, that of an earlier version, if there is one.

        Raises the errors of `MapCache.view`.
        """
        previous = self._find(version.space_key)
        if previous is not None and previous.view.version == version:
            return previous
        until = asyncio.get_running_loop().time() + PATIENCE
        started = False
        while not started:  # one that was started before this request may be of an older version
            making, started = self._start(version)
            waiting = asyncio.wrap_future(making)
            timeout = None if previous is None else max(0.0, until - asyncio.get_running_loop().time())
            done, _ = await asyncio.wait({waiting}, timeout=timeout)
            if previous is not None and not done:
                waiting.add_done_callback(
                    lambda future: future.cancelled() or future.exception()
                )  # the next request raises it
                return previous
            body = waiting.result()
            if body.view.version == version:
                break
        return body

    def make(self, version: MapVersion) -> Body:
        """Make the body of this version, or wait for one that is being made. Raises the errors of `MapCache.view`."""
        return self._start(version)[0].result()

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    def _find(self, space_key: str) -> Body | None:
        with self._lock:
            if space_key in self._bodies:
                self._bodies.move_to_end(space_key)
            return self._bodies.get(space_key)

    def _start(self, version: MapVersion) -> tuple[Future[Body], bool]:
        """The body of the space that is being made, and whether this call has started it."""
        with self._lock:
            making = self._making.get(version.space_key)
            if making is not None:
                return making, False
            making = self._making[version.space_key] = self._threads.submit(self._make, version)
            return making, True

    def _make(self, version: MapVersion) -> Body:
        key = version.space_key
        try:
            previous = self._find(key)
            view = self._create_view(version)
            body = previous if previous is not None and previous.view is view else Body.from_view(view, previous)
            with self._lock:
                self._bodies[key] = body
                self._bodies.move_to_end(key)
                if len(self._bodies) > MAX_BODIES:
                    self._bodies.popitem(last=False)
            return body
        finally:
            with self._lock:
                del self._making[key]


def decompress(gzipped: bytes) -> bytes:
    """The body for a client that does not accept gzip."""
    return gzip.decompress(gzipped)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _json_array(values: Sequence[Any] | np.ndarray) -> str:
    """A long array, in pieces: `json.dumps` keeps all other threads of the process waiting until it returns."""
    pieces = (values[start : start + PIECE] for start in range(0, len(values), PIECE))
    lists = (piece.tolist() if isinstance(piece, np.ndarray) else piece for piece in pieces)
    return f"[{','.join(_json(piece)[1:-1] for piece in lists)}]"


def _json_object(fields: dict[str, str]) -> str:
    """An object whose values are JSON already."""
    return f"{{{','.join(f'{_json(name)}:{value}' for name, value in fields.items())}}}"


def _layout_json(view: MapView) -> str:
    layout = view.layout
    split_ids = (repo_id.split("/", 1) for repo_id in layout.repo_ids)
    owners = [[owner, [name for _, name in repos]] for owner, repos in groupby(split_ids, key=lambda parts: parts[0])]
    points = {
        "owners": _json_array(owners),
        "x": _json_array(layout.coordinates[:, 0]),
        "y": _json_array(layout.coordinates[:, 1]),
        "cluster": _json_array(layout.cluster),
        "distortion": _json_array(layout.distortion),
    }
    fields = {
        "space": view.version.space_key,
        "version": view.version.map_id,
        "side": SIDE,
        "neighbors": layout.neighbors,
        "mean_distortion": round(layout.mean_distortion, 6),
        "clusters": [vars(cluster) for cluster in layout.clusters],
    }
    return _json_object({name: _json(value) for name, value in fields.items()} | {"points": _json_object(points)})


def _changes_json(view: MapView) -> str:
    """The fields for the changes since the layout."""
    arrivals = {
        "repo_ids": _json_array(view.repo_ids),
        "x": _json_array(view.coordinates[:, 0]),
        "y": _json_array(view.coordinates[:, 1]),
        "cluster": _json_array(view.cluster),
    }
    return _json_object({"arrivals": _json_object(arrivals), "removed": _json_array(view.removed)})
