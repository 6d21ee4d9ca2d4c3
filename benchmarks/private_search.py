"""What it costs a search that some models are hidden from whoever asks.

    python -m benchmarks.private_search --json

A space of its own Postgres, searched exactly and through a main segment: `searched` is the median of whole searches by
vector (k = 10, names and all) by somebody without a key, in milliseconds; `ratio` is that to the same searches without
the filter, in turns with them. `shares` are the parts of the models that are private.
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
from catalog.index.builder import Builder
from catalog.index.filters import Filters
from catalog.index.follower import Follower
from catalog.index.schedule import Policy
from catalog.search import service as search_service
from catalog.search.service import Options
from catalog.vectors.repository import feed

SHARES = (0.0, 0.01, 0.5)
OPTIONS = Options(space_key=SPACE.key)


class Unfiltered(Follower):
    """As if everybody saw everything."""

    def allowed(self, filters: Filters, viewer: Viewer = PUBLIC) -> np.ndarray | None:
        return None


def measure(models: int, dimension: int, searches: int) -> dict[str, Any]:
    pool = PoolLike(models, dimension).all()
    rows = []
    with _database() as (database, folder):
        fill(database, models, dimension, [pool])
        Builder(database, folder, Policy(exact_bytes=1)).build(1, force=True)
        for share in SHARES:
            _hide(database, share)
            for name, place in (("exact", None), ("main segment", folder)):
                rows.append({"segment": name, "private": share, **_timed(database, place, pool, searches)})
    return {"models": models, "dimension": dimension, "searches": searches, "shares": rows}


def _timed(database: Database, folder: Path | None, pool: np.ndarray, searches: int) -> dict[str, float]:
    followers = [kind(database, 3600, folder, memory=2**40) for kind in (Follower, Unfiltered)]
    times: list[list[float]] = [[], []]
    try:
        for follower in followers:
            follower.catch_up()
            search_service.by_vector(database, follower, pool[0].tolist(), OPTIONS)
        for number, query in enumerate(pool[:searches].tolist()):
            turns = list(zip(followers, times, strict=True))
            for follower, taken in turns if number % 2 else turns[::-1]:  # who comes second finds warm caches
                started = time.perf_counter()
                search_service.by_vector(database, follower, query, OPTIONS)
                taken.append(time.perf_counter() - started)
    finally:
        for follower in followers:
            follower.stop()
    ratios = np.array(times[0]) / np.array(times[1])
    return {"searched": round(1000 * float(np.median(times[0])), 3), "ratio": round(float(np.median(ratios)), 3)}


def _hide(database: Database, share: float) -> None:
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
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
) -> None:
    """What hiding models costs a search."""
    report = measure(models, dimension, searches)
    if as_json:
        typer.echo(json.dumps(report))
        return
    table = Table("segment", "private", "ms a search", "ratio")
    for row in report["shares"]:
        table.add_row(row["segment"], f"{row['private']:.0%}", f"{row['searched']:.3f}", f"{row['ratio']:.3f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
