"""Measure submissions over HTTP while clusters, a map and a reindex of a large space are published.

    python -m benchmarks.publishing [--models N] [--json]

An API process answers `POST /v1/models` of one client without a pause, for models that are being published and for new
ones in turn. Beside it, a process of the workers' priority publishes two cluster runs in succession (the second one
gives every model another cluster), a map and the cutover of a reindex, each of all N models of a space. All times are
in milliseconds unless their name says otherwise.

- `post`: the submissions during each of these, and for `--quiet` seconds before them.
- `feed_lock_ms`: the longest wait for the lock that workers hold while they store vectors.
- `visible_s`: from the end of a publication until the API's searches filter by the new clusters, or it returns the map.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from app.deployment import processes
from app.deployment.embedded import EmbeddedServers
from benchmarks.filling import SPACE, fill
from benchmarks.pool_like import CHUNK, PoolLike
from catalog.clusters import publishing
from catalog.clusters import service as cluster_service
from catalog.clusters.fitting import Clustering
from catalog.clusters.parameters import Parameters
from catalog.clusters.repository import runs as cluster_runs
from catalog.database import Database
from catalog.maps import repository as maps
from catalog.maps.repository import MapData
from catalog.reindexes import cutover
from catalog.spaces import repository as spaces
from catalog.tables import Reindex, ReindexState, SpaceRow
from catalog.vectors.repository import feed
from tests.support.hub_server import free_port
from tests.support.keys import ADMIN_KEY, AS_ADMIN
from workers.maintenance.__main__ import lower_priority

CARD_WORDS = 60  # of each model, so that its row is as wide as those of real ones
SPACE_ID = 1
EXPLANATION: dict[str, list[Any]] = {"words": [], "tags": [], "tokens": []}
LOCK_INTERVAL = 0.02  # seconds between two requests for the lock of the feed

_CARDS = text("""
    UPDATE models SET card = (
        SELECT string_agg('word' || (models.id * 31 + word * 17) % 9000, ' ') FROM generate_series(1, :words) AS word
    ) WHERE id BETWEEN :first AND :last
""")


@dataclass
class Client:
    """Submits models until it is stopped, in a thread. `milliseconds` has the duration of each request."""

    url: str
    models: int
    milliseconds: list[float] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)

    def submit(self) -> None:
        number = 0
        with httpx.Client(base_url=self.url, headers=AS_ADMIN, timeout=60) as http:
            while not self._stopping.is_set():
                number += 1
                model = 1 + number * 7_919 % self.models
                repo_id = f"owner-{model % 1000}/m-{model}" if number % 2 else f"new/m-{time.time_ns()}"
                started = time.perf_counter()
                response = http.post("/v1/models", json={"repo_id": repo_id})
                self.milliseconds.append(1_000 * (time.perf_counter() - started))
                assert response.status_code == 202, response.text

    def stop(self) -> None:
        self._stopping.set()


@dataclass
class LockProbe:
    """Acquires the lock of the feed again and again, as workers do, in a thread."""

    database: Database
    longest: float = 0.0  # milliseconds
    _stopping: threading.Event = field(default_factory=threading.Event)

    def probe(self) -> None:
        while not self._stopping.wait(LOCK_INTERVAL):
            started = time.perf_counter()
            with self.database.transaction() as session:
                feed.lock_feed(session)
                self.longest = max(self.longest, 1_000 * (time.perf_counter() - started))

    def stop(self) -> None:
        self._stopping.set()


def measure(models: int, dimension: int, quiet: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="deltadex-") as top, EmbeddedServers(Path(top) / "servers") as servers:
        os.environ.update(DATABASE_URL=servers.database_url, REDIS_URL=servers.redis_url, DELTADEX_DATA_DIR=top)
        os.environ.update(DELTADEX_RATE_LIMIT="0", DELTADEX_MAX_ACTIVE_JOBS="100000000", ADMIN_API_KEY=ADMIN_KEY)
        processes.migrate(servers.database_url)
        database = Database(servers.database_url)
        try:
            _fill(database, models, dimension)
            with _api_process() as url:
                return {"models": models, "dimension": dimension, "phases": _phases(database, url, models, quiet)}
        finally:
            database.close()


def _phases(database: Database, url: str, models: int, quiet: float) -> list[dict[str, Any]]:
    _find(url, None)  # loads the index
    rows = [_measure_phase("quiet", database, url, models, lambda: time.sleep(quiet))]
    for number, clusters in enumerate((max(2, int(models**0.5)), max(2, int(models**0.5)) + 1), 1):
        run = cluster_service.request_run(database, Parameters("kmeans", clusters=clusters))[0].id
        visible: list[float] = []

        def publish(run: int = run, clusters: int = clusters, visible: list[float] = visible) -> None:
            _in_process(_publish_clusters, database.url, run, clusters)
            visible.append(_wait_until_visible(url, database))

        row = _measure_phase(f"clusters {number}", database, url, models, publish)
        rows.append(row | {"visible_s": round(visible[0], 2)})
    seconds: list[float] = []

    def publish_map() -> None:
        _in_process(_publish_map, database.url)
        seconds.append(_wait_until_shown(url))

    row = _measure_phase("map", database, url, models, publish_map)
    rows.append(row | {"visible_s": round(seconds[0], 2)})
    rows.append(_measure_phase("cutover", database, url, models, lambda: _in_process(_cut_over, database.url)))
    return rows


def _measure_phase(name: str, database: Database, url: str, models: int, action: Callable[[], None]) -> dict[str, Any]:
    client, probe = Client(url, models), LockProbe(database)
    threads = [threading.Thread(target=client.submit), threading.Thread(target=probe.probe)]
    for thread in threads:
        thread.start()
    started = time.perf_counter()
    try:
        action()
    finally:
        seconds = time.perf_counter() - started
        client.stop()
        probe.stop()
        for thread in threads:
            thread.join()
    quantiles = statistics.quantiles(client.milliseconds, n=100)
    return {
        "phase": name,
        "seconds": round(seconds, 2),
        "posts": len(client.milliseconds),
        "post_p50": round(quantiles[49], 2),
        "post_p99": round(quantiles[98], 2),
        "post_max": round(max(client.milliseconds), 2),
        "feed_lock_ms": round(probe.longest, 1),
    }


# in the process that publishes


def _in_process(task: Callable[..., None], *arguments: Any) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(task, *arguments))
    process.start()
    process.join()
    assert process.exitcode == 0, f"{task.__name__} failed"


def _run(task: Callable[..., None], database_url: str, *arguments: Any) -> None:
    lower_priority()
    database = Database(database_url)
    try:
        task(database, *arguments)
    finally:
        database.close()


def _publish_clusters(database: Database, run_id: int, clusters: int) -> None:
    """Publish a run whose clusters have every `clusters`-th model."""
    with database.transaction() as session:
        run, space = cluster_runs.claim(session, SPACE_ID), session.get_one(SpaceRow, SPACE_ID)
        model_ids, covered_seq = _model_ids(database), feed.last_seq(session)
    assert run is not None
    assert run.id == run_id
    rng = np.random.default_rng(clusters)
    centroids = rng.normal(size=(clusters, space.dimension)).astype(np.float32)
    clustering = Clustering(
        labels=np.arange(len(model_ids)) % clusters,
        centroids=centroids / np.linalg.norm(centroids, axis=1, keepdims=True),
        similarity=rng.uniform(0.5, 1, len(model_ids)),
        radius=np.full(clusters, 0.5),
        cohesion=np.full(clusters, 0.75),
        medoid=np.arange(clusters),
        silhouette=0.5,
        unrelated=0.5,
        parameters=Parameters("kmeans", clusters=clusters),
        metrics={},
    )
    result = publishing.Result(
        run, space, model_ids, clustering, [EXPLANATION] * clusters, covered_seq, time.monotonic()
    )
    publishing.publish(database, result)


def _publish_map(database: Database) -> None:
    model_ids = _model_ids(database)
    coordinates = np.random.default_rng(0).normal(size=(len(model_ids), 2)).astype(np.float32)
    data = MapData(model_ids, coordinates, np.zeros(len(model_ids), np.float32))
    with database.transaction() as session:
        maps.store(session, SPACE_ID, data, covered_seq=feed.last_seq(session), parameters={}, seconds=0.0)


def _cut_over(database: Database) -> None:
    """Cut over to a space that has no vectors yet, so that all of them are copied first."""
    with database.transaction() as session:
        row = Reindex(selection={}, state=ReindexState.READY, stage=None)
        session.add(row)
        session.flush()
        space = session.get_one(SpaceRow, SPACE_ID)
        spaces.ensure(session, replace(SPACE, edition=row.id), space.dimension, may_serve=False)
        reindex_id = row.id
    cutover.cut_over(database, reindex_id, exact_bytes=2**62)


def _model_ids(database: Database) -> np.ndarray:
    with database.autocommit() as connection:
        ids = connection.execute(
            text("SELECT array_agg(model_id ORDER BY model_id) FROM vectors WHERE space_id = :space AND NOT deleted"),
            {"space": SPACE_ID},
        ).scalar_one()
    return np.array(ids, np.int64)


# the catalog and the API


def _fill(database: Database, models: int, dimension: int) -> None:
    pool = PoolLike(models, dimension)
    first = fill(database, models, dimension, (pool.chunk(number) for number in range(-(-models // CHUNK))))
    for start in range(first, first + models, 50_000):
        parameters = {"words": CARD_WORDS, "first": start, "last": min(start + 50_000, first + models) - 1}
        with database.transaction() as session:
            session.execute(_CARDS, parameters)
    with database.autocommit() as connection:
        connection.execute(text("VACUUM ANALYZE"))


@contextmanager
def _api_process() -> Iterator[str]:
    port = free_port()
    command = processes.in_this_environment(processes.api("127.0.0.1", port))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            assert process.poll() is None, "the API did not start"
            try:
                if httpx.get(f"{url}/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


def _find(url: str, cluster: int | None) -> int:
    """The number of models that a search finds, in a cluster if one is given."""
    parameters = {"cluster": cluster, "include_low_confidence": True} if cluster is not None else {}
    while True:
        response = httpx.get(f"{url}/v1/models/owner-1/m-1/neighbors", params=parameters, headers=AS_ADMIN, timeout=60)
        if response.status_code == 200:
            return len(response.json()["neighbors"])
        assert response.status_code == 503, response.text
        time.sleep(1)


def _wait_until_visible(url: str, database: Database) -> float:
    """The seconds until a search finds models by the smallest id of the current clusters that the run before lacked."""
    started = time.perf_counter()
    newest = max(cluster.cluster_id for cluster, _ in cluster_service.list_clusters(database).clusters)
    while not _find(url, newest):
        time.sleep(0.05)
    return time.perf_counter() - started


def _wait_until_shown(url: str) -> float:
    """The seconds until the API has made the first map, which a process refreshes by itself."""
    started = time.perf_counter()
    while httpx.get(f"{url}/v1/map", headers=AS_ADMIN, timeout=600).status_code != 200:
        time.sleep(0.05)
    return time.perf_counter() - started


def main(
    models: Annotated[int, typer.Option(min=200, help="Number of models of the space.")] = 1_000_000,
    dimension: Annotated[int, typer.Option(min=8)] = 64,
    quiet: Annotated[float, typer.Option(min=1, help="Seconds of submissions before anything is published.")] = 20.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Measure submissions while a large space is published."""
    report = measure(models, dimension, quiet)
    if as_json:
        typer.echo(json.dumps(report))
        return
    table = Table("phase", "seconds", "posts", "p50", "p99", "max", "feed lock, ms", "visible, s")
    for row in report["phases"]:
        columns = ("seconds", "posts", "post_p50", "post_p99", "post_max", "feed_lock_ms")
        table.add_row(row["phase"], *(str(row[name]) for name in columns), str(row.get("visible_s", "")))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
