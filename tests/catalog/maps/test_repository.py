import dataclasses

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from catalog.database import Database
from catalog.maps import repository as maps
from catalog.maps.repository import MapData
from catalog.spaces import repository as spaces
from tests.support.catalog import SPACE


@pytest.fixture
def space_id(database: Database) -> int:
    with database.transaction() as session:
        return spaces.ensure(session, SPACE, 4).id


def map_data(n: int = 3) -> MapData:
    generator = np.random.default_rng(n)
    coordinates = generator.normal(size=(n, 2)).astype(np.float32)
    return MapData(np.arange(n, dtype=np.int64)[::-1].copy(), coordinates, np.linspace(0, 1, n, dtype=np.float32))


def store(database: Database, space_id: int, data: MapData) -> int:
    with database.transaction() as session:
        return maps.store(session, space_id, data, covered_seq=7, parameters={"seed": 0}, seconds=1.5).id


def test_stored_map_is_in_the_order_of_its_model_ids(database: Database, space_id: int):
    data = map_data(4)
    store(database, space_id, data)

    with database.transaction() as session:
        stored = maps.decode(maps.find_newest(session, space_id))

    assert stored.model_ids.tolist() == [0, 1, 2, 3]
    assert np.array_equal(stored.coordinates, data.coordinates[::-1])
    assert np.allclose(stored.distortion, data.distortion[::-1], atol=0.5 / 255)


def test_map_stores_its_parameters_and_metrics(database: Database, space_id: int):
    store(database, space_id, map_data(3))

    with database.transaction() as session:
        row = maps.find_newest(session, space_id)
        assert (row.models, row.covered_seq, row.parameters, row.seconds) == (3, 7, {"seed": 0}, 1.5)
        assert row.mean_distortion == pytest.approx(0.5)


def test_the_two_newest_maps_of_a_space_are_kept(database: Database, space_id: int):
    map_ids = [store(database, space_id, map_data(n)) for n in (1, 2, 3)]

    with database.transaction() as session:
        kept = session.execute(text("SELECT id FROM maps ORDER BY id")).scalars().all()
        assert kept == map_ids[1:]
        assert maps.find_newest(session, space_id).id == map_ids[-1]


def test_maps_of_other_spaces_are_kept(database: Database, space_id: int):
    with database.transaction() as session:
        other = spaces.ensure(session, dataclasses.replace(SPACE, feature="delta_logits"), 4)
    first = store(database, other.id, map_data(1))
    for n in (1, 2, 3):
        store(database, space_id, map_data(n))

    with database.transaction() as session:
        assert maps.find_newest(session, other.id).id == first


def test_get_newest_returns_none_without_a_map(database: Database, space_id: int):
    with database.transaction() as session:
        assert maps.find_newest(session, space_id) is None


def test_empty_map_can_be_stored(database: Database, space_id: int):
    store(database, space_id, map_data(0))

    with database.transaction() as session:
        row = maps.find_newest(session, space_id)
        assert row.mean_distortion is None
        assert maps.decode(row).coordinates.shape == (0, 2)


def test_database_rejects_arrays_of_different_lengths(database: Database, space_id: int):
    store(database, space_id, map_data(3))

    with pytest.raises(IntegrityError, match="ck_maps_coordinates_length"), database.transaction() as session:
        session.execute(text("UPDATE maps SET coordinates = substring(coordinates from 9)"))
