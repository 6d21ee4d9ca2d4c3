from __future__ import annotations

import numpy as np
import pytest
from psycopg.pq import TransactionStatus

from catalog.database import Database
from catalog.errors import DatabaseUnavailable
from catalog.vectors.repository import stream as vector_stream
from catalog.vectors.repository.stream import BLOCK_BYTES
from tests.support import catalog as entries

DIMENSION = 8


def vector(number: int) -> np.ndarray:
    return np.random.default_rng(number).standard_normal(DIMENSION).astype(np.float32)


@pytest.fixture
def filled(database: Database) -> Database:
    """Models 1 to 6: two with vectors, one replaced, one without a shift, one removed, one of another dimension."""
    for number in range(1, 7):
        entries.put(database, f"a/m{number}", vector(number), no_shift=number == 4)
    entries.put(database, "a/m3", vector(33), commit="two")
    entries.remove(database, 5)
    entries.put(database, "a/m6", vector(6)[:3], commit="two")
    return database


def streamed(database: Database) -> dict[int, np.ndarray]:
    with database.transaction() as session:
        blocks = list(vector_stream.stream(session, 1, DIMENSION))
    return {model_id: row for ids, rows in blocks for model_id, row in zip(ids.tolist(), rows, strict=True)}


def read(database: Database, *model_ids: int) -> dict[int, np.ndarray]:
    with database.autocommit() as connection:
        ids, rows = vector_stream.newest_vectors(connection, 1, DIMENSION, np.array(model_ids, np.int64))
    assert rows.shape == (len(ids), DIMENSION)
    return dict(zip(ids.tolist(), rows, strict=True))


EXPECTED = {1: vector(1), 2: vector(2), 3: vector(33)}


def test_stream_contains_the_newest_vector_of_each_model(filled: Database):
    vectors = streamed(filled)
    assert sorted(vectors) == sorted(EXPECTED)
    for model_id, expected in EXPECTED.items():
        np.testing.assert_array_equal(vectors[model_id], expected)


def test_count_equals_the_length_of_the_stream(filled: Database):
    with filled.transaction() as session:
        assert vector_stream.count(session, 1, DIMENSION) == len(EXPECTED)


def test_stream_yields_blocks_in_the_order_of_the_models(database: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(vector_stream, "BLOCK_BYTES", 4 * DIMENSION * 2)
    for number in range(1, 6):
        entries.put(database, f"a/m{number}", vector(number))
    with database.transaction() as session:
        blocks = [ids.tolist() for ids, _ in vector_stream.stream(session, 1, DIMENSION)]
    assert blocks == [[1, 2], [3, 4], [5]]
    assert BLOCK_BYTES >= 2**20


def test_newest_vectors_equal_the_streamed_ones(filled: Database):
    vectors = read(filled, 6, 5, 4, 3, 2, 1, 99)
    assert sorted(vectors) == sorted(EXPECTED)
    for model_id, expected in EXPECTED.items():
        np.testing.assert_array_equal(vectors[model_id], expected)


def test_newest_vectors_of_no_models_are_empty(filled: Database):
    assert read(filled) == {}


def test_reading_leaves_no_transaction_open(filled: Database):
    with filled.autocommit() as connection:
        vector_stream.newest_vectors(connection, 1, DIMENSION, np.array([1, 2]))
        assert connection.connection.driver_connection.info.transaction_status == TransactionStatus.IDLE


def test_lost_connection_raises_database_unavailable(filled: Database):
    with filled.autocommit() as connection:
        connection.connection.driver_connection.close()
        with pytest.raises(DatabaseUnavailable):
            vector_stream.newest_vectors(connection, 1, DIMENSION, np.array([1, 2]))
