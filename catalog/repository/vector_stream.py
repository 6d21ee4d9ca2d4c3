"""All vectors of a space at the speed of the wire: a binary COPY, for building an index and for doing without one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from psycopg import Connection, OperationalError, sql
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from catalog.errors import DatabaseUnavailable
from catalog.tables import Vector

BLOCK_BYTES = 8 * 2**20

# the newest row of each model, tombstones among them, before those are left out
_NEWEST = """
    SELECT DISTINCT ON (model_id) model_id, data, deleted OR no_shift AS gone, dimension
    FROM vectors WHERE space_id = {space_id} ORDER BY model_id, seq DESC
"""
_FITTING = f"FROM ({_NEWEST}) AS newest WHERE NOT gone AND dimension = {{dimension}}"
_COPY = f"COPY (SELECT model_id, data {_FITTING}) TO STDOUT (FORMAT BINARY)"
_COUNT = f"SELECT count(*) {_FITTING}"


def covered(session: Session, space_id: int) -> int:
    """The last change of a space that a stream begun after this call is sure to hold."""
    return session.execute(
        select(func.coalesce(func.max(Vector.seq), 0)).where(Vector.space_id == space_id)
    ).scalar_one()


def count(session: Session, space_id: int, dimension: int) -> int:
    """How many models have a vector in the space."""
    statement = _COUNT.format(space_id=":space_id", dimension=":dimension")
    return session.execute(text(statement), {"space_id": space_id, "dimension": dimension}).scalar_one()


def stream(session: Session, space_id: int, dimension: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The newest vector of each model of a space, in the order of the models' ids.

    Yields blocks of ids (m,) int64 and vectors (m, d) float32. Raises `DatabaseUnavailable`.
    """
    try:
        yield from _blocks(session, space_id, dimension)
    except OperationalError as error:  # SQLAlchemy does not see what goes past it
        raise DatabaseUnavailable("Postgres went away while vectors were read.") from error


def _blocks(session: Session, space_id: int, dimension: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rows = max(1, BLOCK_BYTES // (4 * dimension))
    driver = cast(Connection[Any], session.connection().connection.driver_connection)
    places = {"space_id": sql.Literal(space_id), "dimension": sql.Literal(dimension)}
    statement = sql.SQL(_COPY).format(**places)
    ids: list[int] = []
    vectors: list[bytes] = []
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(["int8", "bytea"])
        for model_id, data in copy.rows():
            ids.append(model_id)
            vectors.append(data)
            if len(ids) == rows:
                yield _block(ids, vectors, dimension)
                ids, vectors = [], []
    if ids:
        yield _block(ids, vectors, dimension)


def _block(ids: list[int], vectors: list[bytes], dimension: int) -> tuple[np.ndarray, np.ndarray]:
    return np.array(ids, dtype=np.int64), np.frombuffer(b"".join(vectors), dtype="<f4").reshape(-1, dimension)
