"""Other libraries, each at the largest n that it indexes within a time limit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import numpy as np
import psycopg
from pgvector import HalfVector, Vector
from pgvector.psycopg import register_vector
from psycopg import sql

from benchmarks.index.data import Data
from benchmarks.index.measuring import K, Times, recall

BLOCK = 1_000  # vectors added between checks of the time limit
TARGET_RECALL = 0.99
WIDTHS = (10, 20, 40, 80, 160, 320, 640, 1_000)  # search widths, tried until the recall is reached
NEIGHBORS, BUILD_WIDTH = 16, 200  # M and efConstruction of the graphs
THREADS = os.cpu_count() or 1
SCANS = 20  # timed exact scans of pgvector, which are slow


class Library(Protocol):
    """An index over the first rows of the data."""

    name: str

    def build(self, data: Data, seconds: float) -> int:
        """Index as many vectors as possible within the time limit; returns their number."""

    def megabytes(self) -> float: ...

    def set_width(self, width: int) -> None: ...

    def search(self, query: np.ndarray) -> np.ndarray:
        """The rows of the K nearest vectors."""


def measure(data: Data, database_url: str, seconds: float, log: Callable[[str], None]) -> list[dict[str, Any]]:
    """One row per library. Those on Postgres use a separate schema."""
    rows = []
    for library_class in (HnswLib, USearch, USearchHalf):
        rows.append(_measure(library_class(), data, seconds))
        log(str(rows[-1]))
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as connection:
        for library in _pgvector_indexes(connection):
            rows.append(_measure(library, data, seconds))
            log(str(rows[-1]))
            connection.execute("DROP TABLE indexed")
    return rows


def _measure(library: Library, data: Data, seconds: float) -> dict[str, Any]:
    start = time.perf_counter()
    n = library.build(data, seconds)
    report: dict[str, Any] = {"name": library.name, "n": n, "build_seconds": round(time.perf_counter() - start, 1)}
    if not n:
        return report
    truth = data.nearest_among(n)
    exact = type(library) is PgExact
    queries = data.queries[:SCANS] if exact else data.queries
    for width in WIDTHS:
        library.set_width(width)
        times = Times()
        results = [times.measure(partial(library.search, query)) for query in queries]
        report |= {"width": width, "recall_at_10": recall(results, truth[: len(queries)]), **times.summary()}
        if exact or report["recall_at_10"] >= TARGET_RECALL:
            break
    return report | {"mb": round(library.megabytes(), 1)}


def _blocks(data: Data, seconds: float) -> Iterator[tuple[int, np.ndarray]]:
    """Blocks of vectors and their first rows, until the time limit."""
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
        for first, block in _blocks(data, seconds):
            self._index.add_items(block, np.arange(first, first + len(block)))
        self._index.set_num_threads(1)
        return self._index.element_count

    def megabytes(self) -> float:
        return self._index.index_file_size() / 2**20

    def set_width(self, width: int) -> None:
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
        for first, block in _blocks(data, seconds):
            self._index.add(np.arange(first, first + len(block)), block, threads=THREADS)
        return len(self._index)

    def megabytes(self) -> float:
        return self._index.memory_usage / 2**20

    def set_width(self, width: int) -> None:
        self._index.expansion_search = width

    def search(self, query: np.ndarray) -> np.ndarray:
        return self._index.search(query, K).keys.astype(np.int64)


class USearchHalf(USearch):
    name, dtype = "usearch, float16", "f16"


class PgExact:
    """pgvector without an index, which compares every row."""

    name = "pgvector, exact scan"
    type_, operators, max_dimension = "vector", "vector_ip_ops", 16_000

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def build(self, data: Data, seconds: float) -> int:
        self._d = min(data.d, self.max_dimension)
        statement = "CREATE TABLE indexed (id bigint, v {}({}))"
        self._connection.execute(sql.SQL(statement).format(sql.SQL(self.type_), sql.Literal(self._d)))  # type: ignore[arg-type]
        with self._connection.cursor() as cursor, cursor.copy("COPY indexed FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["int8", self.type_])
            for row, vector in enumerate(data.vectors):
                copy.write_row((row, self._value(vector)))
        return data.n

    def megabytes(self) -> float:
        return self._size("pg_total_relation_size('indexed')")

    def set_width(self, width: int) -> None:
        self._connection.execute("SET max_parallel_workers_per_gather = 2")

    def search(self, query: np.ndarray) -> np.ndarray:
        rows = self._connection.execute(
            f"SELECT id FROM indexed ORDER BY v <#> %s LIMIT {K}", (self._value(query),), binary=True
        ).fetchall()
        return np.array([row for (row,) in rows])

    def _value(self, vector: np.ndarray) -> Vector | HalfVector:
        return Vector(vector[: self._d])

    def _size(self, expression: str) -> float:
        row = self._connection.execute(f"SELECT {expression}").fetchone()
        assert row is not None
        return row[0] / 2**20


class PgHnsw(PgExact):
    """pgvector's HNSW over the first dimensions, as many as it supports."""

    name = "pgvector, HNSW, first 2,000 dimensions"
    max_dimension = 2_000

    def build(self, data: Data, seconds: float) -> int:
        super().build(data, seconds)
        rows = data.n
        self._connection.execute("SET maintenance_work_mem = '4GB'")
        self._connection.execute(f"SET max_parallel_maintenance_workers = {THREADS}")
        while rows >= BLOCK:
            self._connection.execute(f"SET statement_timeout = {int(1_000 * seconds)}")
            try:
                self._connection.execute(
                    f"CREATE INDEX ON indexed USING hnsw (v {self.operators}) "
                    f"WITH (m = {NEIGHBORS}, ef_construction = {BUILD_WIDTH})"
                )
                return rows
            except psycopg.errors.QueryCanceled:
                rows //= 2
            finally:
                self._connection.execute("SET statement_timeout = 0")
            self._connection.execute(f"DELETE FROM indexed WHERE id >= {rows}")
            self._connection.execute("VACUUM FULL indexed")
        return 0

    def megabytes(self) -> float:
        return self._size("pg_indexes_size('indexed')")

    def set_width(self, width: int) -> None:
        self._connection.execute(f"SET hnsw.ef_search = {width}")


class PgHnswHalf(PgHnsw):
    name = "pgvector, HNSW, halfvec, first 4,000 dimensions"
    type_, operators, max_dimension = "halfvec", "halfvec_ip_ops", 4_000

    def _value(self, vector: np.ndarray) -> Vector | HalfVector:
        return HalfVector(vector[: self._d])


def _pgvector_indexes(connection: psycopg.Connection) -> Iterator[Library]:
    connection.execute("CREATE EXTENSION vector")
    connection.execute("CREATE SCHEMA libraries")
    connection.execute("SET search_path = libraries, public")
    register_vector(connection)
    for library in (PgExact, PgHnsw, PgHnswHalf):
        yield library(connection)
