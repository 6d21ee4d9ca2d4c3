from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import event

from catalog.database import Database
from catalog.errors import NotMapped, SpaceNotFound
from catalog.index.follower import Follower
from catalog.maps import repository as maps
from catalog.maps.runner import Drawer
from catalog.maps.view import SIDE, Atlas, View, gridded
from tests.support import catalog as entries
from tests.support.clusters import cluster, fill, vector

SPACE_ID = 1


@pytest.fixture
def follower(database: Database) -> Iterator[Follower]:
    made = Follower(database, interval=3600)
    made.catch_up()
    yield made
    made.stop()


@pytest.fixture
def atlas(database: Database, follower: Follower) -> Atlas:
    return Atlas(database, follower)


@pytest.fixture
def drawn(database: Database, tmp_path: Path) -> Database:
    """A map of three clusters of six models."""
    fill(database, each=6)
    cluster(database, tmp_path)
    Drawer(database, tmp_path).run(SPACE_ID)
    return database


def look(atlas: Atlas) -> View:
    atlas.index.catch_up()
    return atlas.view(atlas.standing())


def place_of(view: View, repo_id: str) -> np.ndarray:
    if repo_id in view.repo_ids:
        return view.places[view.repo_ids.index(repo_id)]
    return view.sheet.places[view.sheet.repo_ids.index(repo_id)]


def test_the_points_are_those_of_the_drawing_in_the_order_of_their_names(drawn: Database, atlas: Atlas):
    sheet = look(atlas).sheet
    assert sheet.repo_ids == sorted(sheet.repo_ids)
    assert len(sheet.repo_ids) == 18
    with drawn.transaction() as session:
        stored = maps.arrays(maps.newest(session, SPACE_ID))
    expected = dict(zip(stored.model_ids.tolist(), gridded(stored.places).tolist(), strict=True))
    assert dict(zip(sheet.model_ids.tolist(), sheet.places.tolist(), strict=True)) == expected


def test_points_have_the_clusters_of_the_run_that_is_shown(drawn: Database, atlas: Atlas):
    sheet = look(atlas).sheet
    names = [sheet.clusters[number].name for number in sheet.cluster]
    assert names == [repo_id.split("-")[1] for repo_id in sheet.repo_ids]


def test_a_model_that_came_since_is_put_among_its_own(drawn: Database, atlas: Atlas):
    entries.put(drawn, "owner/new", vector(1, 99))
    view = look(atlas)
    assert view.repo_ids == ["owner/new"]
    centres = {
        topic: np.mean([place_of(view, f"owner/tiny-{topic}-{number}") for number in range(6)], axis=0)
        for topic in ("law", "math", "code")
    }
    nearest = min(centres, key=lambda topic: np.linalg.norm(centres[topic] - view.places[0]))
    assert nearest == "math"


def test_it_stays_where_it_was_put_when_others_come(drawn: Database, atlas: Atlas):
    entries.put(drawn, "owner/new", vector(1, 99))
    before = place_of(look(atlas), "owner/new").tolist()
    entries.put(drawn, "owner/other", vector(1, 98))
    view = look(atlas)
    assert sorted(view.repo_ids) == ["owner/new", "owner/other"]
    assert place_of(view, "owner/new").tolist() == before


def test_it_stays_there_when_the_clusters_are_found_anew(drawn: Database, atlas: Atlas, tmp_path: Path):
    entries.put(drawn, "owner/new", vector(1, 99))
    before = place_of(look(atlas), "owner/new").tolist()
    cluster(drawn, tmp_path)
    view = look(atlas)
    assert place_of(view, "owner/new").tolist() == before
    assert view.sheet.clusters[view.cluster[0]].name == "math"


def test_a_model_that_left_is_gone(drawn: Database, atlas: Atlas):
    sheet = look(atlas).sheet
    row = sheet.repo_ids.index("owner/tiny-law-3")
    entries.remove(drawn, int(sheet.model_ids[row]))
    view = look(atlas)
    assert (view.gone, view.repo_ids) == ([row], [])


def test_a_model_that_was_embedded_anew_moves(drawn: Database, atlas: Atlas):
    entries.put(drawn, "owner/tiny-law-3", vector(2, 3), commit="two")
    view = look(atlas)
    assert view.gone == [view.sheet.repo_ids.index("owner/tiny-law-3")]
    assert view.repo_ids == ["owner/tiny-law-3"]
    code = np.array([place_of(view, f"owner/tiny-code-{number}") for number in range(6)])
    assert np.linalg.norm(view.places[0] - code.mean(axis=0)) < np.linalg.norm(
        view.places[0] - view.sheet.places[view.gone[0]]
    )


def test_the_same_map_is_looked_up_once(drawn: Database, atlas: Atlas):
    first = look(atlas)
    statements: list[str] = []
    with_listener = lambda *arguments: statements.append(arguments[2])  # noqa: E731
    event.listen(drawn.engine, "before_cursor_execute", with_listener)
    try:
        again = atlas.view(atlas.standing())
    finally:
        event.remove(drawn.engine, "before_cursor_execute", with_listener)
    assert again is first
    assert len(statements) == 1


def test_a_new_drawing_is_shown_in_place_of_the_last(drawn: Database, atlas: Atlas, tmp_path: Path):
    entries.put(drawn, "owner/new", vector(1, 99))
    first = look(atlas)
    Drawer(drawn, tmp_path).run(SPACE_ID)
    view = look(atlas)
    assert view.standing.map_id > first.standing.map_id
    assert (len(view.sheet.repo_ids), view.repo_ids) == (19, [])


def test_without_a_map_it_says_when_there_will_be_one(database: Database, atlas: Atlas):
    with pytest.raises(SpaceNotFound):
        atlas.standing()
    fill(database, each=1)
    with pytest.raises(NotMapped, match="half a minute"):
        atlas.standing()


def test_it_says_why_there_is_none(database: Database, atlas: Atlas):
    fill(database, each=1)
    with database.transaction() as session:
        maps.note_attempt(session, SPACE_ID)
    with pytest.raises(NotMapped, match="is being drawn"):
        atlas.standing()
    with database.transaction() as session:
        maps.fail(session, SPACE_ID, MemoryError("no room"))
    with pytest.raises(NotMapped, match="no room"):
        atlas.standing()


def test_the_grid_keeps_the_proportions():
    places = gridded(np.array([[0.0, 0.0], [10.0, 5.0], [5.0, 2.5]], np.float32))
    assert places.tolist() == [[0, 0], [SIDE, round(SIDE / 2)], [round(SIDE / 2), round(SIDE / 4)]]


@pytest.mark.parametrize("n", [0, 1, 3])
def test_places_that_are_all_the_same_are_one_corner(n: int):
    assert gridded(np.ones((n, 2), np.float32)).tolist() == [[0, 0]] * n
