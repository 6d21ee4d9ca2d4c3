"""What a user would take otherwise, each at the largest n that it builds within the time given."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import psycopg
from pgvector import HalfVector, Vector
from pgvector.psycopg import register_vector
from psycopg import sql

from benchmarks.index.data import Data
from benchmarks.index.measuring import K, Times, recall

BLOCK = 1_000  # vectors added before the clock is looked at
WANTED_RECALL = 0.99
WIDTHS = (10, 20, 40, 80, 160, 320, 640, 1_000)  # of a graph search, tried until the recall is reached
NEIGHBORS, BUILD_WIDTH = 16, 200  # M and efConstruction of hnswlib's and usearch's graphs
THREADS = os.cpu_count() or 1
SCANS = 20  # exact scans of pgvector that are timed: each takes long


class Library(Protocol):
    """Somebody's index over the first rows of the data."""

    name: str

    def build(self, data: Data, seconds: float) -> int:
        """Index what can be indexed within that time; returns how many vectors."""

    def megabytes(self) -> float: ...

    def widen(self, width: int) -> None: ...

    def search(self, query: np.ndarray) -> np.ndarray:
        """Rows (K,) of the nearest."""


def measure(data: Data, database_url: str, seconds: float, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """One row of the table each. What needs Postgres uses the tables of a schema of its own."""
    rows = []
    for make in (HnswLib, USearch, USearchHalf):
        rows.append(_measure(make(), data, seconds))
        say(str(rows[-1]))
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as connection:
        for rival in _pgvector_indexes(connection):
            rows.append(_measure(rival, data, seconds))
            say(str(rows[-1]))
            connection.execute("DROP TABLE rival")
    return rows


def _measure(rival: Library, data: Data, seconds: float) -> dict[str, Any]:
    start = time.perf_counter()
    n = rival.build(data, seconds)
    report: dict[str, Any] = {"name": rival.name, "n": n, "build_seconds": round(time.perf_counter() - start, 1)}
    if not n:
        return report
    truth = data.nearest_among(n)
    exact = type(rival) is PgExact
    queries = data.queries[:SCANS] if exact else data.queries
    for width in WIDTHS:
        rival.widen(width)
        times = Times()
        found = [times.measure(lambda query=query: rival.search(query)) for query in queries]
        report |= {"width": width, "recall_at_10": recall(found, truth[: len(queries)]), **times.summary()}
        if exact or report["recall_at_10"] >= WANTED_RECALL:
            break
    return report | {"mb": round(rival.megabytes(), 1)}


def _blocks(data: Data, seconds: float) -> Iterator[tuple[int, np.ndarray]]:
    """The next vectors and the row they begin at, while there is time."""
    start = time.perf_counter()
    for first in range(0, data.n, BLOCK):
        if time.perf_counter() - start > seconds:
            return
        yield first, data.vectors[first : first + BLOCK]


class HnswLib:
    name = "hnswlib, float32"

    def build(self, data: Data, seconds: float) -> int:
        import hnswlib

        self._index = hnswlib.Index("ip", data.d)
        self._index.init_index(data.n, ef_construction=BUILD_WIDTH, M=NEIGHBORS)
        self._index.set_num_threads(THREADS)
        for first, piece in _blocks(data, seconds):
            self._index.add_items(piece, np.arange(first, first + len(piece)))
        self._index.set_num_threads(1)
        return self._index.element_count

    def megabytes(self) -> float:
        return self._index.index_file_size() / 2**20

    def widen(self, width: int) -> None:
        self._index.set_ef(width)

    def search(self, query: np.ndarray) -> np.ndarray:
        return self._index.knn_query(query, K)[0][0]


class USearch:
    name, dtype = "usearch, float32", "f32"

    def build(self, data: Data, seconds: float) -> int:
        from usearch.index import Index

        self._index = Index(
            ndim=data.d, metric="ip", dtype=self.dtype, connectivity=NEIGHBORS, expansion_add=BUILD_WIDTH
        )
        for first, piece in _blocks(data, seconds):
            self._index.add(np.arange(first, first + len(piece)), piece, threads=THREADS)
        return len(self._index)

    def megabytes(self) -> float:
        return self._index.memory_usage / 2**20

    def widen(self, width: int) -> None:
        self._index.expansion_search = width

    def search(self, query: np.ndarray) -> np.ndarray:
        return self._index.search(query, K).keys.astype(np.int64)


class USearchHalf(USearch):
    name, dtype = "usearch, float16", "f16"


class PgExact:
    """No index at all: pgvector compares every row."""

    name = "pgvector, exact scan"
    type_, operators, most = "vector", "vector_ip_ops", 16_000  # dimensions

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def build(self, data: Data, seconds: float) -> int:
        self._d = min(data.d, self.most)
        statement = "CREATE TABLE rival (id bigint, v {}({}))"
        self._connection.execute(sql.SQL(statement).format(sql.SQL(self.type_), sql.Literal(self._d)))  # type: ignore[arg-type]
        with self._connection.cursor() as cursor, cursor.copy("COPY rival FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["int8", self.type_])
            for row, vector in enumerate(data.vectors):
                copy.write_row((row, self._value(vector)))
        return data.n

    def megabytes(self) -> float:
        return self._size("pg_total_relation_size('rival')")

    def widen(self, width: int) -> None:
        self._connection.execute("SET max_parallel_workers_per_gather = 2")

    def search(self, query: np.ndarray) -> np.ndarray:
        rows = self._connection.execute(
            f"SELECT id FROM rival ORDER BY v <#> %s LIMIT {K}", (self._value(query),), binary=True
        ).fetchall()
        return np.array([row for (row,) in rows])

    def _value(self, vector: np.ndarray) -> Vector | HalfVector:
        return Vector(vector[: self._d])

    def _size(self, what: str) -> float:
        found = self._connection.execute(f"SELECT {what}").fetchone()
        assert found is not None
        return found[0] / 2**20


class PgHnsw(PgExact):
    """pgvector's HNSW over as many dimensions as it takes; the first ones where there are more."""

    name = "pgvector, HNSW, first 2,000 dimensions"
    most = 2_000

    def build(self, data: Data, seconds: float) -> int:
        super().build(data, seconds)
        rows = data.n
        self._connection.execute("SET maintenance_work_mem = '4GB'")
        self._connection.execute(f"SET max_parallel_maintenance_workers = {THREADS}")
        while rows >= BLOCK:
            self._connection.execute(f"SET statement_timeout = {int(1_000 * seconds)}")
            try:
                self._connection.execute(
                    f"CREATE INDEX ON rival USING hnsw (v {self.operators}) "
                    f"WITH (m = {NEIGHBORS}, ef_construction = {BUILD_WIDTH})"
                )
                return rows
            except psycopg.errors.QueryCanceled:
                rows //= 2
            finally:
                self._connection.execute("SET statement_timeout = 0")
            self._connection.execute(f"DELETE FROM rival WHERE id >= {rows}")
            self._connection.execute("VACUUM FULL rival")
        return 0

    def megabytes(self) -> float:
        return self._size("pg_indexes_size('rival')")

    def widen(self, width: int) -> None:
        self._connection.execute(f"SET hnsw.ef_search = {width}")


class PgHnswHalf(PgHnsw):
    name = "pgvector, HNSW, halfvec, first 4,000 dimensions"
    type_, operators, most = "halfvec", "halfvec_ip_ops", 4_000

    def _value(self, vector: np.ndarray) -> Vector | HalfVector:
        return HalfVector(vector[: self._d])


def _pgvector_indexes(connection: psycopg.Connection) -> Iterator[Library]:
    connection.execute("CREATE EXTENSION vector")
    connection.execute("CREATE SCHEMA rivals")
    connection.execute("SET search_path = rivals, public")
    register_vector(connection)
    for rival in (PgExact, PgHnsw, PgHnswHalf):
        yield rival(connection)
