"""Current maps: the stored layout, with the models that arrived or were removed since."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from sqlalchemy.orm import Session

from catalog.clusters.repository import clusters
from catalog.database import Database
from catalog.errors import MapNotReady
from catalog.index.follower import IndexFollower
from catalog.maps import repository as maps
from catalog.maps.distortion import neighbor_counts
from catalog.maps.placement import SEARCHED_NEIGHBORS, interpolate
from catalog.maps.repository import MapVersion, Point
from catalog.models.repository import models
from catalog.spaces import repository as spaces
from catalog.vectors.repository import feed
from catalog.vectors.repository import stream as vector_stream
from catalog.vectors.repository.feed import ModelChange

SIDE = 4_095  # length of the longer side: 12 bits per coordinate are enough for any screen
MAX_LOADED_MAPS = 4  # per process


@dataclass(frozen=True)
class MapCluster:
    id: int
    name: str
    size: int


@dataclass(frozen=True, eq=False)
class LoadedMap:
    """A stored map of n points in the order of their names.

    Coordinates are integers from 0 to `SIDE`. `cluster` has indices into `clusters` (-1: none). `distortion` is the
    number of each point's `neighbors` true neighbors that are far from it.
    """

    neighbors: int
    mean_distortion: float
    clusters: list[MapCluster]
    model_ids: np.ndarray  # (n,) int64
    repo_ids: list[str]
    coordinates: np.ndarray  # (n, 2) int64
    cluster: np.ndarray  # (n,) int64
    distortion: np.ndarray  # (n,) int64
    # models placed since, by id: the seq of the vector, and the coordinates (2,)
    arrivals: dict[int, tuple[int, np.ndarray]] = field(default_factory=dict)

    def without(self, model_ids: Sequence[int]) -> LoadedMap:
        """The map without these models, whose names it must not show any more. The same object if it has none."""
        kept = ~np.isin(self.model_ids, np.array(model_ids, np.int64))
        if kept.all():
            return self
        return replace(
            self,
            model_ids=self.model_ids[kept],
            repo_ids=[repo_id for repo_id, is_kept in zip(self.repo_ids, kept.tolist(), strict=True) if is_kept],
            coordinates=self.coordinates[kept],
            cluster=self.cluster[kept],
            distortion=self.distortion[kept],
        )


@dataclass(frozen=True, eq=False)
class MapView:
    """A current map: its layout, the m models placed since, and the rows of the layout that are no longer valid because
    their models were removed or placed again.
    """

    version: MapVersion
    layout: LoadedMap
    repo_ids: list[str]
    coordinates: np.ndarray  # (m, 2) int64
    cluster: list[int]
    removed: list[int]


@dataclass
class MapCache:
    """The loaded maps of a process. Layouts and placements are kept until a new map is stored.

    Several threads may load maps, each space one at a time.
    """

    database: Database
    index: IndexFollower
    _views: dict[int, MapView] = field(default_factory=dict)  # by space id, the most recently used last
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def current_version(self, space_key: str | None = None) -> MapVersion:
        """The version that `view` would return now, without loading it. Raises `MapNotReady` and `SpaceNotFound`."""
        with self.database.transaction() as session:
            version = maps.find_current_version(session, space_key)
            if version is None:
                raise _map_not_ready(session, space_key)
        return version

    def view(self, version: MapVersion) -> MapView:
        """The map in this version. Raises `IndexNotLoaded` if a model must be placed and the index is missing."""
        with self._lock:
            view = self._views.get(version.space_id)
        if view is None or view.version != version:
            view = self._create_view(version, view)
        with self._lock:
            self._views.pop(version.space_id, None)
            self._views[version.space_id] = view
            if len(self._views) > MAX_LOADED_MAPS:
                del self._views[next(iter(self._views))]
        return view

    def _create_view(self, version: MapVersion, previous: MapView | None) -> MapView:
        layout = self._layout(version, previous)
        with self.database.transaction(timeouts=False) as session:
            changes = feed.list_changed_models(session, version.space_id, version.covered_seq)
            present = {change.model_id for change in changes if not change.removed}
            points = maps.list_points(session, sorted(present), version.run_id)
            gone = models.find_removed(session, [change.model_id for change in changes if change.removed])
        layout = layout.without(gone)
        changed_ids = np.array([change.model_id for change in changes], np.int64)
        removed = np.flatnonzero(np.isin(layout.model_ids, changed_ids))
        coordinates = self._place_arrivals(layout, version, changes, removed)
        points = [point for point in points if point.model_id in coordinates]
        indices = {cluster.id: index for index, cluster in enumerate(layout.clusters)}
        return MapView(
            version,
            layout,
            [point.repo_id for point in points],
            np.array([coordinates[point.model_id] for point in points], np.int64).reshape(-1, 2),
            [_cluster_index(point, indices) for point in points],
            removed.tolist(),
        )

    def _layout(self, version: MapVersion, previous: MapView | None) -> LoadedMap:
        if previous is None or previous.version.map_id != version.map_id:
            return self._load(version)
        if previous.version.run_id != version.run_id:
            return replace(self._load(version), arrivals=previous.layout.arrivals)
        return previous.layout

    def _load(self, version: MapVersion) -> LoadedMap:
        with self.database.transaction(timeouts=False) as session:
            row = maps.get(session, version.map_id)
            data = maps.decode(row)
            points = maps.list_points(session, data.model_ids.tolist(), version.run_id)
            names = clusters.list_names(session, version.run_id) if version.run_id else []
        map_clusters = [MapCluster(*row) for row in names]
        indices = {cluster.id: index for index, cluster in enumerate(map_clusters)}
        model_ids = np.array([point.model_id for point in points], np.int64)
        rows = np.searchsorted(data.model_ids, model_ids)
        neighbors = neighbor_counts(len(data.model_ids))[0]
        return LoadedMap(
            neighbors,
            row.mean_distortion or 0.0,
            map_clusters,
            model_ids,
            [point.repo_id for point in points],
            quantize(data.coordinates)[rows],
            np.array([_cluster_index(point, indices) for point in points], np.int64),
            np.rint(data.distortion[rows] * neighbors).astype(np.int64),
        )

    def _place_arrivals(
        self, layout: LoadedMap, version: MapVersion, changes: list[ModelChange], removed: np.ndarray
    ) -> dict[int, np.ndarray]:
        """The coordinates (2,) of each changed model that is still in the space. Earlier placements are reused."""
        placed = layout.arrivals
        seqs = {change.model_id: change.seq for change in changes if not change.removed}
        pending = [model_id for model_id, seq in seqs.items() if placed.get(model_id, (0, None))[0] != seq]
        if pending:
            with self.database.autocommit() as connection:
                ids, vectors = vector_stream.newest_vectors(
                    connection, version.space_id, version.dimension, np.array(pending, np.int64)
                )
            index = self.index.index(version.space_id, version.dimension)
            valid_rows = np.delete(np.arange(len(layout.model_ids)), removed)
            allowed = np.zeros(layout.model_ids.max(initial=0) + 2, bool)  # greater ids are clipped to the last
            allowed[layout.model_ids[valid_rows]] = True
            by_id = valid_rows[np.argsort(layout.model_ids[valid_rows])]
            for model_id, vector in zip(ids.tolist(), vectors, strict=True):
                hits = index.search(vector, SEARCHED_NEIGHBORS, allowed=allowed)
                rows = by_id[np.searchsorted(layout.model_ids[by_id], hits.model_ids)]
                point = interpolate(hits.cosines[None], layout.coordinates[None, rows])[0]
                placed[model_id] = (seqs[model_id], np.rint(point).astype(np.int64))
        return {model_id: placed[model_id][1] for model_id in seqs if model_id in placed}


def quantize(coordinates: np.ndarray) -> np.ndarray:
    """Coordinates (n, 2), shifted and scaled so that the longer side is from 0 to `SIDE`: int64 (n, 2)."""
    if not len(coordinates):
        return np.zeros((0, 2), np.int64)
    coordinates = coordinates.astype(np.float64)
    low = coordinates.min(axis=0)
    extent = float((coordinates.max(axis=0) - low).max())
    return np.rint((coordinates - low) * (SIDE / extent if extent else 0.0)).astype(np.int64)


def _map_not_ready(session: Session, space_key: str | None) -> MapNotReady:
    """The reason why there is no map. Raises `SpaceNotFound`."""
    space = spaces.get(session, space_key) if space_key else spaces.get_default(session)
    attempt = maps.find_attempt(session, space.id)
    if attempt is None:
        return MapNotReady(
            "There is no map of this space yet. It is built once the space has five models and has not changed for "
            "half a minute."
        )
    if attempt.error_code is None:
        return MapNotReady("The first map of this space is being built. Try again in a moment.")
    return MapNotReady(
        f"The map of this space could not be built ({attempt.error_code}: {attempt.error_message}). It will be retried."
    )


def _cluster_index(point: Point, indices: dict[int, int]) -> int:
    return -1 if point.cluster_id is None else indices.get(point.cluster_id, -1)
