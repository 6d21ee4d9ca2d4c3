"""Maps as they stand now: what was drawn, and what came and left since."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace

import numpy as np
from sqlalchemy.orm import Session

from catalog.clusters.repository import clusters
from catalog.database import Database
from catalog.errors import NotMapped
from catalog.index.follower import Follower
from catalog.maps import repository as maps
from catalog.maps.distortion import reach
from catalog.maps.placement import LOOKED_AT, among
from catalog.maps.repository import Point, Standing
from catalog.spaces import repository as spaces
from catalog.vectors.repository import feed
from catalog.vectors.repository import stream as vector_stream
from catalog.vectors.repository.feed import Touched

SIDE = 4_095  # units of the longer side: 12 bits a coordinate tell apart all that a screen does
SHEETS = 4  # maps that a process keeps ready


@dataclass(frozen=True)
class ShownCluster:
    id: int
    name: str
    size: int


@dataclass(frozen=True, eq=False)
class Sheet:
    """A map as it was drawn: n points in the order of their names. Places are whole numbers from 0 to `SIDE`, clusters
    places in `clusters` (-1: none), and `distortion` how many of its `neighbours` true neighbours are far, of each.
    """

    neighbours: int
    mean_distortion: float
    clusters: list[ShownCluster]
    model_ids: np.ndarray  # (n,) int64
    repo_ids: list[str]
    places: np.ndarray  # (n, 2) int64
    cluster: np.ndarray  # (n,) int64
    distortion: np.ndarray  # (n,) int64
    placed: dict[int, tuple[int, np.ndarray]] = field(default_factory=dict)  # since: of a model the change, the place


@dataclass(frozen=True, eq=False)
class View:
    """A map as it stands: its sheet, the models put among their neighbours since, and the rows of the sheet that left
    their places, for another or for none.
    """

    standing: Standing
    sheet: Sheet
    repo_ids: list[str]
    places: np.ndarray  # (m, 2) int64
    cluster: list[int]
    gone: list[int]


@dataclass
class Atlas:
    """The maps of a process. What was read or placed once is kept until the map or the clusters are made anew."""

    database: Database
    index: Follower
    _views: dict[int, View] = field(default_factory=dict)  # by space, the most used last
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def standing(self, space_key: str | None = None) -> Standing:
        """What `view` would show, without looking at it. Raises `NotMapped` and `SpaceNotFound`."""
        with self.database.transaction() as session:
            found = maps.standing(session, space_key)
            if found is None:
                raise _not_mapped(session, space_key)
        return found

    def view(self, standing: Standing) -> View:
        """That map as it stands. Raises `IndexNotLoaded` where a model is to be placed and the index is not there."""
        with self._lock:
            known = self._views.pop(standing.space_id, None)
            if known is None or known.standing != standing:
                known = self._made(standing, known)
            self._views[standing.space_id] = known
            if len(self._views) > SHEETS:
                del self._views[next(iter(self._views))]
            return known

    def _made(self, standing: Standing, last: View | None) -> View:
        sheet = self._sheet(standing, last)
        with self.database.transaction() as session:
            touched = feed.touched(session, standing.space_id, standing.covered_seq)
            present = {each.model_id for each in touched if not each.gone}
            points = maps.points(session, sorted(present), standing.run_id)
        ids = np.array([each.model_id for each in touched], np.int64)
        gone = np.flatnonzero(np.isin(sheet.model_ids, ids))
        places = self._places(sheet, standing, touched, gone)
        points = [point for point in points if point.model_id in places]
        numbers = {cluster.id: place for place, cluster in enumerate(sheet.clusters)}
        return View(
            standing,
            sheet,
            [point.repo_id for point in points],
            np.array([places[point.model_id] for point in points], np.int64).reshape(-1, 2),
            [_place_of(point, numbers) for point in points],
            gone.tolist(),
        )

    def _sheet(self, standing: Standing, last: View | None) -> Sheet:
        if last is None or last.standing.map_id != standing.map_id:
            return self._read(standing)
        if last.standing.run_id != standing.run_id:
            return replace(self._read(standing), placed=last.sheet.placed)
        return last.sheet

    def _read(self, standing: Standing) -> Sheet:
        with self.database.transaction() as session:
            row = maps.get(session, standing.map_id)
            drawn = maps.arrays(row)
            points = maps.points(session, drawn.model_ids.tolist(), standing.run_id)
            run = clusters.of_run(session, standing.run_id) if standing.run_id else []
        shown = [ShownCluster(cluster.cluster_id, cluster.name, cluster.size) for cluster, _ in run]
        numbers = {cluster.id: place for place, cluster in enumerate(shown)}
        model_ids = np.array([point.model_id for point in points], np.int64)
        rows = np.searchsorted(drawn.model_ids, model_ids)
        neighbours = reach(len(drawn.model_ids))[0]
        return Sheet(
            neighbours,
            row.mean_distortion or 0.0,
            shown,
            model_ids,
            [point.repo_id for point in points],
            gridded(drawn.places)[rows],
            np.array([_place_of(point, numbers) for point in points], np.int64),
            np.rint(drawn.distortion[rows] * neighbours).astype(np.int64),
        )

    def _places(
        self, sheet: Sheet, standing: Standing, touched: list[Touched], gone: np.ndarray
    ) -> dict[int, np.ndarray]:
        """The place (2,) of each touched model that is still there; those placed before stay where they were put."""
        known = sheet.placed
        wanted = {each.model_id: each.seq for each in touched if not each.gone}
        new = [model_id for model_id, seq in wanted.items() if known.get(model_id, (0, None))[0] != seq]
        if new:
            with self.database.reading() as connection:
                ids, found = vector_stream.newest_of(
                    connection, standing.space_id, standing.dimension, np.array(new, np.int64)
                )
            index = self.index.index(standing.space_id, standing.dimension)
            standing_still = np.delete(np.arange(len(sheet.model_ids)), gone)
            allowed = np.zeros(sheet.model_ids.max(initial=0) + 2, bool)  # what is beyond counts as the last, false
            allowed[sheet.model_ids[standing_still]] = True
            order = standing_still[np.argsort(sheet.model_ids[standing_still])]
            for model_id, vector in zip(ids.tolist(), found, strict=True):
                hits = index.search(vector, LOOKED_AT, allowed=allowed)
                rows = order[np.searchsorted(sheet.model_ids[order], hits.model_ids)]
                place = among(hits.cosines[None], sheet.places[None, rows])[0]
                known[model_id] = (wanted[model_id], np.rint(place).astype(np.int64))
        return {model_id: known[model_id][1] for model_id in wanted if model_id in known}


def gridded(places: np.ndarray) -> np.ndarray:
    """Places (n, 2) moved and stretched to whole numbers from 0 to `SIDE`, the shorter side less: int64 (n, 2)."""
    if not len(places):
        return np.zeros((0, 2), np.int64)
    wide = places.astype(np.float64)
    low = wide.min(axis=0)
    extent = float((wide.max(axis=0) - low).max())
    return np.rint((wide - low) * (SIDE / extent if extent else 0.0)).astype(np.int64)


def _not_mapped(session: Session, space_key: str | None) -> NotMapped:
    """Why there is no map. Raises `SpaceNotFound`."""
    space = spaces.get(session, space_key) if space_key else spaces.newest(session)
    tried = maps.attempt(session, space.id)
    if tried is None:
        return NotMapped(
            "There is no map of this space yet. It is drawn once five models or more are in and none has come for "
            "half a minute."
        )
    if tried.error_code is None:
        return NotMapped("The first map of this space is being drawn; look again in a moment.")
    return NotMapped(
        f"The map of this space could not be drawn ({tried.error_code}: {tried.error_message}); it is tried again."
    )


def _place_of(point: Point, numbers: dict[int, int]) -> int:
    return -1 if point.cluster_id is None else numbers.get(point.cluster_id, -1)
