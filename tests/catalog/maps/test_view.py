from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import event

from catalog.database import Database
from catalog.errors import MapNotReady, SpaceNotFound
from catalog.index.follower import IndexFollower
from catalog.maps import repository as maps
from catalog.maps.runner import MapRunner
from catalog.maps.view import SIDE, MapCache, MapView, quantize
from tests.support import catalog as entries
from tests.support.clusters import cluster, fill, vector

SPACE_ID = 1


@pytest.fixture
def follower(database: Database) -> Iterator[IndexFollower]:
    follower = IndexFollower(database, interval=3600)
    follower.sync()
    yield follower
    follower.stop()


@pytest.fixture
def map_cache(database: Database, follower: IndexFollower) -> MapCache:
    return MapCache(database, follower)


@pytest.fixture
def mapped(database: Database, tmp_path: Path) -> Database:
    """A map of three clusters of six models."""
    fill(database, models_per_topic=6)
    cluster(database, tmp_path)
    MapRunner(database, tmp_path).run(SPACE_ID)
    return database


def current_view(map_cache: MapCache) -> MapView:
    map_cache.index.sync()
    return map_cache.view(map_cache.current_version())


def coordinates_of(view: MapView, repo_id: str) -> np.ndarray:
    if repo_id in view.repo_ids:
        return view.coordinates[view.repo_ids.index(repo_id)]
    return view.layout.coordinates[view.layout.repo_ids.index(repo_id)]


def test_points_are_those_of_the_stored_map_in_the_order_of_their_names(mapped: Database, map_cache: MapCache):
    layout = current_view(map_cache).layout
    assert layout.repo_ids == sorted(layout.repo_ids)
    assert len(layout.repo_ids) == 18
    with mapped.transaction() as session:
        stored = maps.decode(maps.find_newest(session, SPACE_ID))
    expected = dict(zip(stored.model_ids.tolist(), quantize(stored.coordinates).tolist(), strict=True))
    assert dict(zip(layout.model_ids.tolist(), layout.coordinates.tolist(), strict=True)) == expected


def test_points_have_the_clusters_of_the_current_run(mapped: Database, map_cache: MapCache):
    layout = current_view(map_cache).layout
    names = [layout.clusters[index].name for index in layout.cluster]
    assert names == [repo_id.split("-")[1] for repo_id in layout.repo_ids]


def test_new_model_is_placed_among_its_neighbors(mapped: Database, map_cache: MapCache):
    entries.put(mapped, "owner/new", vector(1, 99))
    view = current_view(map_cache)
    assert view.repo_ids == ["owner/new"]
    centers = {
        topic: np.mean([coordinates_of(view, f"owner/tiny-{topic}-{number}") for number in range(6)], axis=0)
        for topic in ("law", "math", "code")
    }
    nearest = min(centers, key=lambda topic: np.linalg.norm(centers[topic] - view.coordinates[0]))
    assert nearest == "math"


def test_placed_model_stays_in_place_when_others_arrive(mapped: Database, map_cache: MapCache):
    entries.put(mapped, "owner/new", vector(1, 99))
    before = coordinates_of(current_view(map_cache), "owner/new").tolist()
    entries.put(mapped, "owner/other", vector(1, 98))
    view = current_view(map_cache)
    assert sorted(view.repo_ids) == ["owner/new", "owner/other"]
    assert coordinates_of(view, "owner/new").tolist() == before


def test_placed_model_stays_in_place_after_a_new_cluster_run(mapped: Database, map_cache: MapCache, tmp_path: Path):
    entries.put(mapped, "owner/new", vector(1, 99))
    before = coordinates_of(current_view(map_cache), "owner/new").tolist()
    cluster(mapped, tmp_path)
    view = current_view(map_cache)
    assert coordinates_of(view, "owner/new").tolist() == before
    assert view.layout.clusters[view.cluster[0]].name == "math"


def test_removed_model_is_not_shown(mapped: Database, map_cache: MapCache):
    layout = current_view(map_cache).layout
    row = layout.repo_ids.index("owner/tiny-law-3")
    entries.remove(mapped, int(layout.model_ids[row]))
    view = current_view(map_cache)
    assert (view.removed, view.repo_ids) == ([row], [])


def test_model_with_a_new_revision_moves(mapped: Database, map_cache: MapCache):
    entries.put(mapped, "owner/tiny-law-3", vector(2, 3), commit="two")
    view = current_view(map_cache)
    assert view.removed == [view.layout.repo_ids.index("owner/tiny-law-3")]
    assert view.repo_ids == ["owner/tiny-law-3"]
    code = np.array([coordinates_of(view, f"owner/tiny-code-{number}") for number in range(6)])
    assert np.linalg.norm(view.coordinates[0] - code.mean(axis=0)) < np.linalg.norm(
        view.coordinates[0] - view.layout.coordinates[view.removed[0]]
    )


def test_unchanged_map_takes_one_statement(mapped: Database, map_cache: MapCache):
    first = current_view(map_cache)
    statements: list[str] = []
    record = lambda *arguments: statements.append(arguments[2])  # noqa: E731
    event.listen(mapped.engine, "before_cursor_execute", record)
    try:
        second = map_cache.view(map_cache.current_version())
    finally:
        event.remove(mapped.engine, "before_cursor_execute", record)
    assert second is first
    assert len(statements) == 1


def test_new_map_replaces_the_previous_one(mapped: Database, map_cache: MapCache, tmp_path: Path):
    entries.put(mapped, "owner/new", vector(1, 99))
    first = current_view(map_cache)
    MapRunner(mapped, tmp_path).run(SPACE_ID)
    view = current_view(map_cache)
    assert view.version.map_id > first.version.map_id
    assert (len(view.layout.repo_ids), view.repo_ids) == (19, [])


def test_missing_map_raises_map_not_ready(database: Database, map_cache: MapCache):
    with pytest.raises(SpaceNotFound):
        map_cache.current_version()
    fill(database, models_per_topic=1)
    with pytest.raises(MapNotReady, match="half a minute"):
        map_cache.current_version()


def test_map_not_ready_contains_the_reason(database: Database, map_cache: MapCache):
    fill(database, models_per_topic=1)
    with database.transaction() as session:
        maps.start_attempt(session, SPACE_ID)
    with pytest.raises(MapNotReady, match="is being built"):
        map_cache.current_version()
    with database.transaction() as session:
        maps.fail(session, SPACE_ID, MemoryError("no room"))
    with pytest.raises(MapNotReady, match="no room"):
        map_cache.current_version()


def test_quantize_keeps_the_proportions():
    coordinates = quantize(np.array([[0.0, 0.0], [10.0, 5.0], [5.0, 2.5]], np.float32))
    assert coordinates.tolist() == [[0, 0], [SIDE, round(SIDE / 2)], [round(SIDE / 2), round(SIDE / 4)]]


@pytest.mark.parametrize("n", [0, 1, 3])
def test_quantize_maps_equal_coordinates_to_the_origin(n: int):
    assert quantize(np.ones((n, 2), np.float32)).tolist() == [[0, 0]] * n
