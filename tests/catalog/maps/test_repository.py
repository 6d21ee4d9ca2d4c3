import dataclasses

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from catalog.database import Database
from catalog.maps import repository as maps
from catalog.maps.repository import Drawn
from catalog.spaces import repository as spaces
from tests.support.catalog import SPACE


@pytest.fixture
def space_id(database: Database) -> int:
    with database.transaction() as session:
        return spaces.ensure(session, SPACE, 4).id


def drawn(n: int = 3) -> Drawn:
    generator = np.random.default_rng(n)
    places = generator.normal(size=(n, 2)).astype(np.float32)
    return Drawn(np.arange(n, dtype=np.int64)[::-1].copy(), places, np.linspace(0, 1, n, dtype=np.float32))


def store(database: Database, space_id: int, what: Drawn) -> int:
    with database.transaction() as session:
        return maps.store(session, space_id, what, covered_seq=7, parameters={"seed": 0}, seconds=1.5).id


def test_a_map_comes_back_in_the_order_of_its_models(database: Database, space_id: int):
    what = drawn(4)
    store(database, space_id, what)

    with database.transaction() as session:
        found = maps.arrays(maps.newest(session, space_id))

    assert found.model_ids.tolist() == [0, 1, 2, 3]
    assert np.array_equal(found.places, what.places[::-1])
    assert np.allclose(found.distortion, what.distortion[::-1], atol=0.5 / 255)


def test_a_map_keeps_what_it_was_made_of(database: Database, space_id: int):
    store(database, space_id, drawn(3))

    with database.transaction() as session:
        row = maps.newest(session, space_id)
        assert (row.models, row.covered_seq, row.parameters, row.seconds) == (3, 7, {"seed": 0}, 1.5)
        assert row.mean_distortion == pytest.approx(0.5)


def test_the_newest_two_of_a_space_stay(database: Database, space_id: int):
    made = [store(database, space_id, drawn(n)) for n in (1, 2, 3)]

    with database.transaction() as session:
        left = session.execute(text("SELECT id FROM maps ORDER BY id")).scalars().all()
        assert left == made[1:]
        assert maps.newest(session, space_id).id == made[-1]


def test_maps_of_other_spaces_stay(database: Database, space_id: int):
    with database.transaction() as session:
        other = spaces.ensure(session, dataclasses.replace(SPACE, feature="delta_logits"), 4)
    first = store(database, other.id, drawn(1))
    for n in (1, 2, 3):
        store(database, space_id, drawn(n))

    with database.transaction() as session:
        assert maps.newest(session, other.id).id == first


def test_a_space_without_a_map_has_none(database: Database, space_id: int):
    with database.transaction() as session:
        assert maps.newest(session, space_id) is None


def test_a_map_of_nothing_can_be_stored(database: Database, space_id: int):
    store(database, space_id, drawn(0))

    with database.transaction() as session:
        row = maps.newest(session, space_id)
        assert row.mean_distortion is None
        assert maps.arrays(row).places.shape == (0, 2)


def test_the_database_refuses_arrays_of_different_lengths(database: Database, space_id: int):
    store(database, space_id, drawn(3))

    with pytest.raises(IntegrityError, match="ck_maps_places_length"), database.transaction() as session:
        session.execute(text("UPDATE maps SET places = substring(places from 9)"))
