"""Reads vectors in binary, bypassing SQLAlchemy: those of some models for a search, or a whole space with COPY."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import psycopg
from psycopg import sql
from sqlalchemy import Connection, func, select, text
from sqlalchemy.orm import Session

from catalog.auth.repository.access import PUBLIC_VECTORS
from catalog.database import unavailable
from catalog.tables import Vector

BLOCK_BYTES = 2**20

# the newest row of each model, tombstones included
_NEWEST = """
    SELECT DISTINCT ON (model_id) model_id, data, deleted OR no_shift AS gone, dimension
    FROM vectors WHERE space_id = {space_id} AND {visibility} ORDER BY model_id, seq DESC
"""
_FROM_NEWEST = f"FROM ({_NEWEST}) AS newest WHERE NOT gone AND dimension = {{dimension}}"
_COPY = f"COPY (SELECT model_id, data {_FROM_NEWEST}) TO STDOUT (FORMAT BINARY)"
_COUNT = f"SELECT count(*) {_FROM_NEWEST}"
_NEWEST_OF_MODELS = """
    SELECT newest.model_id, newest.data
    FROM unnest(%(models)s::bigint[]) AS requested (model_id)
    CROSS JOIN LATERAL (
        SELECT model_id, data, dimension, deleted OR no_shift AS gone FROM vectors
        WHERE model_id = requested.model_id AND space_id = %(space_id)s ORDER BY seq DESC LIMIT 1
    ) AS newest
    WHERE NOT gone AND dimension = %(dimension)s
"""


def last_seq_of_space(session: Session, space_id: int) -> int:
    """The seq of a space's last change, 0 without any. A stream that begins after this call contains that change."""
    return session.execute(
        select(func.coalesce(func.max(Vector.seq), 0)).where(Vector.space_id == space_id, Vector.seq > 0)
    ).scalar_one()


def count(session: Session, space_id: int, dimension: int, *, public: bool = False) -> int:
    """The number of models (`public`: of public models) that have a vector in the space."""
    statement = _COUNT.format(space_id=":space_id", dimension=":dimension", visibility=_visibility(public))
    return session.execute(text(statement), {"space_id": space_id, "dimension": dimension}).scalar_one()


def stream(
    session: Session, space_id: int, dimension: int, *, public: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the newest vector of each model (`public`: each public model) of a space, in the order of the models' ids.

    Yields blocks of ids (m,) int64 and vectors (m, d) float32. Raises `DatabaseUnavailable`.
    """
    with _driver(session.connection()) as driver:
        yield from _blocks(driver, space_id, dimension, public)


def newest_vectors(
    connection: Connection, space_id: int, dimension: int, model_ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The newest vectors of models (n,) in a space.

    Returns the ids (m,) int64 of the models that have a vector there, and the vectors (m, d) float32. Raises
    `DatabaseUnavailable`.
    """
    parameters = {"models": model_ids.tolist(), "space_id": space_id, "dimension": dimension}
    with _driver(connection) as driver, driver.cursor(binary=True) as cursor:
        rows = cursor.execute(_NEWEST_OF_MODELS, parameters).fetchall()
    return _block([model_id for model_id, _ in rows], [data for _, data in rows], dimension)


@contextmanager
def _driver(connection: Connection) -> Iterator[psycopg.Connection[Any]]:
    try:
        yield cast(psycopg.Connection[Any], connection.connection.driver_connection)
    except psycopg.OperationalError as error:  # SQLAlchemy does not translate this driver error
        raise unavailable(error) from error


def _visibility(public: bool) -> str:
    return PUBLIC_VECTORS if public else "true"


def _blocks(
    driver: psycopg.Connection[Any], space_id: int, dimension: int, public: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rows = max(1, BLOCK_BYTES // (4 * dimension))
    statement = sql.SQL(_COPY).format(
        space_id=sql.Literal(space_id),
        dimension=sql.Literal(dimension),
        visibility=sql.SQL(_visibility(public)),
    )
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
