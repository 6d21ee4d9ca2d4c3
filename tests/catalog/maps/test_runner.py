from pathlib import Path

import numpy as np
import pytest

from catalog.database import Database
from catalog.maps import repository as maps
from catalog.maps import runner as map_runner
from catalog.maps.runner import Drawer
from catalog.tables import Map
from catalog.vectors.repository import feed
from tests.support import catalog as entries
from tests.support.points import grouped

SPACE_ID = 1


@pytest.fixture
def rows(database: Database) -> np.ndarray:
    """Twenty models of three groups in space 1, each longer than 1."""
    found = grouped(25, groups=3)
    for number in range(20):
        entries.put(database, f"a/m{number}", found[number] * (number + 2))
    return found


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Laying out fails until it is undone."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(map_runner, "lay_out", fail)
    return monkeypatch


def newest(database: Database) -> Map:
    with database.transaction() as session:
        return maps.newest(session, SPACE_ID)


def test_every_model_gets_a_place(database: Database, rows: np.ndarray, tmp_path: Path):
    drawn = Drawer(database, tmp_path).run(SPACE_ID)

    row = newest(database)
    assert row.id == drawn
    assert row.models == 20
    assert len(np.unique(maps.arrays(row).places, axis=0)) == 20


def test_it_covers_the_changes_up_to_then(database: Database, rows: np.ndarray, tmp_path: Path):
    Drawer(database, tmp_path).run(SPACE_ID)

    with database.transaction() as session:
        assert maps.newest(session, SPACE_ID).covered_seq == feed.last_seq(session)


def test_the_next_map_starts_from_the_last(database: Database, rows: np.ndarray, tmp_path: Path):
    Drawer(database, tmp_path).run(SPACE_ID)
    for number in range(20, 25):
        entries.put(database, f"a/m{number}", rows[number])

    Drawer(database, tmp_path).run(SPACE_ID)

    row = newest(database)
    assert row.models == 25
    assert row.parameters["known"] == 20


def test_a_model_that_left_is_not_on_the_next_map(database: Database, rows: np.ndarray, tmp_path: Path):
    Drawer(database, tmp_path).run(SPACE_ID)
    gone = int(maps.arrays(newest(database)).model_ids[3])
    entries.remove(database, gone)

    Drawer(database, tmp_path).run(SPACE_ID)

    assert gone not in maps.arrays(newest(database)).model_ids


def test_only_one_draws_a_space_at_a_time(database: Database, rows: np.ndarray, tmp_path: Path):
    with database.transaction() as session:
        assert maps.try_lock(session, SPACE_ID)
        assert Drawer(database, tmp_path).run(SPACE_ID) is None
    assert newest(database) is None


def test_a_space_whose_models_all_left_has_an_empty_map(database: Database, tmp_path: Path):
    model_id = entries.put(database, "a/only", [1, 0, 0])
    entries.remove(database, model_id)

    Drawer(database, tmp_path).run(SPACE_ID)

    assert newest(database).models == 0


def test_a_drawing_that_fails_says_why(
    database: Database, rows: np.ndarray, tmp_path: Path, broken: pytest.MonkeyPatch
):
    with pytest.raises(RuntimeError):
        Drawer(database, tmp_path).run(SPACE_ID)

    with database.transaction() as session:
        tried = maps.attempt(session, SPACE_ID)
        assert (tried.count, tried.error_code) == (1, "internal_error")
        assert "no room" in tried.error_message
        assert maps.newest(session, SPACE_ID) is None


def test_one_that_ends_well_forgets_those_that_did_not(
    database: Database, rows: np.ndarray, tmp_path: Path, broken: pytest.MonkeyPatch
):
    with pytest.raises(RuntimeError):
        Drawer(database, tmp_path).run(SPACE_ID)
    broken.undo()
    Drawer(database, tmp_path).run(SPACE_ID)

    with database.transaction() as session:
        assert maps.attempt(session, SPACE_ID) is None
        assert maps.newest(session, SPACE_ID).models == 20
