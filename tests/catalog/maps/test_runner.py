from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.database import Database
from catalog.maps import repository as maps
from catalog.maps import runner as map_runner
from catalog.maps.runner import MapRunner
from catalog.tables import Map
from catalog.vectors.repository import feed
from catalog.vectors.repository import stream as vector_stream
from tests.support import catalog as entries
from tests.support.points import grouped_vectors

SPACE_ID = 1


@pytest.fixture
def rows(database: Database) -> np.ndarray:
    """25 unit vectors of three groups; models with the first 20 of them, with norms above 1, are in space 1."""
    rows = grouped_vectors(25, groups=3)
    for number in range(20):
        entries.put(database, f"a/m{number}", rows[number] * (number + 2))
    return rows


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Makes the layout fail until it is undone."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(map_runner, "lay_out", fail)
    return monkeypatch


def newest(database: Database) -> Map:
    with database.transaction() as session:
        return maps.find_newest(session, SPACE_ID)


def test_every_model_gets_coordinates(database: Database, rows: np.ndarray, tmp_path: Path):
    map_id = MapRunner(database, tmp_path).run(SPACE_ID)

    row = newest(database)
    assert row.id == map_id
    assert row.models == 20
    assert len(np.unique(maps.decode(row).coordinates, axis=0)) == 20


def test_map_covers_all_changes_so_far(database: Database, rows: np.ndarray, tmp_path: Path):
    MapRunner(database, tmp_path).run(SPACE_ID)

    with database.transaction() as session:
        assert maps.find_newest(session, SPACE_ID).covered_seq == feed.last_seq(session)


def test_model_stored_while_the_map_reads_vectors_is_a_change_after_it(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = entries.put_model(database, "a/first")  # its id precedes those of all others
    stored = grouped_vectors(25, groups=3)
    model_ids = {entries.put(database, f"a/m{number}", stored[number]) for number in range(20)}
    count = vector_stream.count

    def count_and_store(*arguments: Any, **options: Any) -> int:
        counted = count(*arguments, **options)
        entries.put(database, "a/first", stored[20])
        return counted

    monkeypatch.setattr(vector_stream, "count", count_and_store)
    MapRunner(database, tmp_path).run(SPACE_ID)

    row = newest(database)
    with database.transaction() as session:
        later = {change.model_id for change in feed.list_changed_models(session, SPACE_ID, row.covered_seq)}
    assert set(maps.decode(row).model_ids.tolist()) == model_ids
    assert later == {first.id}


def test_next_map_starts_from_the_previous_one(database: Database, rows: np.ndarray, tmp_path: Path):
    MapRunner(database, tmp_path).run(SPACE_ID)
    for number in range(20, 25):
        entries.put(database, f"a/m{number}", rows[number])

    MapRunner(database, tmp_path).run(SPACE_ID)

    row = newest(database)
    assert row.models == 25
    assert row.parameters["previous_models"] == 20


def test_removed_model_is_not_on_the_next_map(database: Database, rows: np.ndarray, tmp_path: Path):
    MapRunner(database, tmp_path).run(SPACE_ID)
    removed = int(maps.decode(newest(database)).model_ids[3])
    entries.remove(database, removed)

    MapRunner(database, tmp_path).run(SPACE_ID)

    assert removed not in maps.decode(newest(database)).model_ids


def test_only_one_process_builds_a_map_of_a_space(database: Database, rows: np.ndarray, tmp_path: Path):
    with database.transaction() as session:
        assert maps.try_lock(session, SPACE_ID)
        assert MapRunner(database, tmp_path).run(SPACE_ID) is None
    assert newest(database) is None


def test_space_without_models_has_an_empty_map(database: Database, tmp_path: Path):
    model_id = entries.put(database, "a/only", [1, 0, 0])
    entries.remove(database, model_id)

    MapRunner(database, tmp_path).run(SPACE_ID)

    assert newest(database).models == 0


def test_failed_attempt_stores_its_error(
    database: Database, rows: np.ndarray, tmp_path: Path, broken: pytest.MonkeyPatch
):
    with pytest.raises(RuntimeError):
        MapRunner(database, tmp_path).run(SPACE_ID)

    with database.transaction() as session:
        attempt = maps.find_attempt(session, SPACE_ID)
        assert (attempt.count, attempt.error_code) == (1, "internal_error")
        assert "no room" in attempt.error_message
        assert maps.find_newest(session, SPACE_ID) is None


def test_success_deletes_the_failed_attempts(
    database: Database, rows: np.ndarray, tmp_path: Path, broken: pytest.MonkeyPatch
):
    with pytest.raises(RuntimeError):
        MapRunner(database, tmp_path).run(SPACE_ID)
    broken.undo()
    MapRunner(database, tmp_path).run(SPACE_ID)

    with database.transaction() as session:
        assert maps.find_attempt(session, SPACE_ID) is None
        assert maps.find_newest(session, SPACE_ID).models == 20
