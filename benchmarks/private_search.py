"""Measure how much private models slow down a public search.

    python -m benchmarks.private_search --json

A space is searched exactly and through a main segment, with a share of the models private. `search_ms` is the median
time of a complete search by vector (k = 10, including the names) without an API key, in milliseconds. `ratio` is the
ratio to the same search without the visibility filter; the two alternate.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from app.deployment.embedded import EmbeddedServers
from app.deployment.processes import migrate
from benchmarks.filling import SPACE, fill
from benchmarks.pool_like import PoolLike
from catalog.auth.viewer import PUBLIC, Viewer
from catalog.database import Database
from catalog.index.builder import IndexBuilder
from catalog.index.filters import Filters
from catalog.index.follower import IndexFollower
from catalog.index.schedule import BuildPolicy
from catalog.search import service as search_service
from catalog.search.service import SearchOptions
from catalog.vectors.repository import feed

SHARES = (0.0, 0.01, 0.5)
OPTIONS = SearchOptions(space_key=SPACE.key)


class Unfiltered(IndexFollower):
    """An index that shows all models to every viewer."""

    def allowed(self, filters: Filters, viewer: Viewer = PUBLIC) -> np.ndarray | None:
        return None


def measure(models: int, dimension: int, searches: int) -> dict[str, Any]:
    pool = PoolLike(models, dimension).all()
    rows = []
    with _database() as (database, folder):
        fill(database, models, dimension, [pool])
        IndexBuilder(database, folder, BuildPolicy(exact_bytes=1)).build(1, force=True)
        for share in SHARES:
            _make_private(database, share)
            for name, index_folder in (("exact", None), ("main segment", folder)):
                timing = _measure_share(database, index_folder, pool, searches)
                rows.append({"segment": name, "private": share, **timing})
    return {"models": models, "dimension": dimension, "searches": searches, "shares": rows}


def _measure_share(database: Database, folder: Path | None, pool: np.ndarray, searches: int) -> dict[str, float]:
    followers = [follower_class(database, 3600, folder, memory=2**40) for follower_class in (IndexFollower, Unfiltered)]
    times: list[list[float]] = [[], []]
    try:
        for follower in followers:
            follower.sync()
            search_service.by_vector(database, follower, pool[0].tolist(), OPTIONS)
        for number, query in enumerate(pool[:searches].tolist()):
            pairs = list(zip(followers, times, strict=True))
            for follower, seconds in pairs if number % 2 else pairs[::-1]:  # the second one has warm caches
                started = time.perf_counter()
                search_service.by_vector(database, follower, query, OPTIONS)
                seconds.append(time.perf_counter() - started)
    finally:
        for follower in followers:
            follower.stop()
    ratios = np.array(times[0]) / np.array(times[1])
    return {"search_ms": round(1000 * float(np.median(times[0])), 3), "ratio": round(float(np.median(ratios)), 3)}


def _make_private(database: Database, share: float) -> None:
    with database.transaction() as session:
        feed.lock_feed(session)
        session.execute(
            text("UPDATE models SET private = true, seq = nextval('change_seq') WHERE id % 100 < :below"),
            {"below": round(100 * share)},
        )
    with database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("ANALYZE"))


@contextmanager
def _database() -> Iterator[tuple[Database, Path]]:
    with tempfile.TemporaryDirectory(prefix="deltadex-") as top, EmbeddedServers(Path(top), None, "unused") as servers:
        migrate(servers.database_url)
        database = Database(servers.database_url)
        try:
            yield database, Path(top) / "index"
        finally:
            database.close()


def main(
    models: Annotated[int, typer.Option(min=100)] = 20_000,
    dimension: Annotated[int, typer.Option(min=8)] = 256,
    searches: Annotated[int, typer.Option(min=10)] = 400,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Measure searches with different shares of private models."""
    report = measure(models, dimension, searches)
    if as_json:
        typer.echo(json.dumps(report))
        return
    table = Table("segment", "private", "ms per search", "ratio")
    for row in report["shares"]:
        table.add_row(row["segment"], f"{row['private']:.0%}", f"{row['search_ms']:.3f}", f"{row['ratio']:.3f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
