"""Measure what one client that sends the costliest requests allowed does to the searches of another one.

    python -m benchmarks.costly_client --json

A real API process answers over HTTP on loopback, from a catalog of generated vectors with a fitted geometry. One client
asks for the neighbors of a model at a steady rate, first alone and then beside the other one, which sends from a
process of its own, in several threads and without pausing: the largest pages and batches, searches by frequent words,
statistics, misspelled names, and bodies full of mistakes. Both have an API key and the default rate limit, which
`--rate-limit` changes. A third client asks for `/healthz` and `/readyz` all the time.
"""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table

from app.deployment.processes import api, in_this_environment
from benchmarks.index.catalogs import SPACE_ID, Catalog, open_catalog
from benchmarks.index.data import Data
from benchmarks.index.measuring import Times
from catalog.auth import keys
from catalog.auth.keys import KeyRequest
from catalog.geometry import repository as geometries
from catalog.geometry.repository import GeometryKey
from catalog.geometry.transforms import CENTERED, MAX_SAMPLE, centered
from catalog.tables import Role

HOSTILE_THREADS = 16
SEARCHES_PER_SECOND = 20
CHECK_INTERVAL = 0.02  # seconds
ASKED = {"relative_p99": 5.0, "healthz_ms": 100.0}


def hostile_requests(models: int, dimension: int) -> Iterator[dict[str, Any]]:
    """The costliest requests, again and again."""
    rng = random.Random(0)
    name = f"owner-{7 % 1000}/m-7"
    batch = [f"owner-{number % 1000}/m-{number}" for number in range(1, min(models, 100) + 1)]
    largest = {"k": 1_000, "diversity": 0.9, "group_above": 0.999999, "include_low_confidence": True}
    vector = [rng.gauss(0, 1) for _ in range(dimension)]
    yield from cycle(
        [
            {"method": "POST", "url": "/v1/search", "json": {"repo_id": name, **largest}},
            {"method": "POST", "url": "/v1/search", "json": {"vector": vector, **largest}},
            {"method": "POST", "url": "/v1/search/batch", "json": {"repo_ids": batch, **largest, "k": 100}},
            {"method": "GET", "url": f"/v1/models/{name}/neighbors", "params": largest},
            {"method": "GET", "url": "/v1/models", "params": {"q": "owner m", "limit": 200}},
            {"method": "GET", "url": "/v1/stats"},
            {"method": "POST", "url": "/v1/search", "json": {"expression": "x" * 96 + " + " + "y" * 96}},
            {"method": "POST", "url": "/v1/search", "content": b'{"vector":[' + b"1," * 79_000 + b"[]]}"},
            {"method": "POST", "url": "/v1/tasks", "content": b'{"examples":[' + b"{}," * 9_000 + b"{}]}"},
        ]
    )


def attack(url: str, key: str, seconds: float, models: int, dimension: int) -> dict[str, int]:
    """Send the costliest requests from several threads. Returns how many answers had each status."""
    end = time.monotonic() + seconds
    statuses: Counter[str] = Counter()
    requests, lock = hostile_requests(models, dimension), threading.Lock()

    def run() -> None:
        headers = {"X-API-Key": key, "Content-Type": "application/json"}
        with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
            while time.monotonic() < end:
                with lock:
                    request = next(requests)
                try:
                    statuses[str(client.request(**request).status_code)] += 1
                except httpx.TransportError as error:
                    statuses[type(error).__name__] += 1

    threads = [threading.Thread(target=run) for _ in range(HOSTILE_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return dict(statuses)


class Neighbors(threading.Thread):
    """A client that asks for neighbors at a steady rate."""

    def __init__(self, url: str, key: str, models: int) -> None:
        super().__init__(daemon=True)
        self.times, self.refused = Times(), 0
        self._client = httpx.Client(base_url=url, headers={"X-API-Key": key}, timeout=60)
        self._models = models
        self._stopping = threading.Event()

    def run(self) -> None:
        rng, due = random.Random(1), time.monotonic()
        while not self._stopping.is_set():
            number = rng.randrange(1, self._models + 1)
            path = f"/v1/models/owner-{number % 1000}/m-{number}/neighbors"
            response = self.times.measure(lambda path=path: self._client.get(path))  # type: ignore[misc]
            self.refused += response.is_error
            due = max(due + 1 / SEARCHES_PER_SECOND, time.monotonic())
            self._stopping.wait(max(0, due - time.monotonic()))

    def stop(self) -> Times:
        self._stopping.set()
        self.join()
        self._client.close()
        return self.times


class HealthChecks(threading.Thread):
    """A load balancer that asks for both health checks all the time."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.times = {"/healthz": Times(), "/readyz": Times()}
        self.failed = 0
        self._url = url
        self._stopping = threading.Event()

    def run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._stopping.wait(CHECK_INTERVAL):
                for path, times in self.times.items():
                    response = times.measure(lambda path=path: client.get(path))  # type: ignore[misc]
                    self.failed += response.is_error

    def stop(self) -> dict[str, Any]:
        self._stopping.set()
        self.join()
        return {path.strip("/"): times.summary() | {"max_ms": times.ms(1)} for path, times in self.times.items()}


def measure(catalog: Catalog, seconds: float, rate_limit: int) -> dict[str, Any]:
    _fit_geometry(catalog)
    hostile, other = (_create_key(catalog, name) for name in ("hostile", "other"))
    models = catalog.data.n
    with _api(catalog, rate_limit) as (url, memory):
        _measure_neighbors(url, other, models, lambda: time.sleep(min(seconds, 3)))  # warms up
        checks, answers = HealthChecks(url), {}
        checks.start()
        quiet, _ = _measure_neighbors(url, other, models, lambda: time.sleep(seconds))
        quiet_health = checks.stop()
        quiet_memory = memory()
        arguments = [url, hostile, str(seconds), str(models), str(catalog.data.d)]
        checks = HealthChecks(url)

        def run() -> None:
            code = "import sys, json; from benchmarks import costly_client as c; a = sys.argv[1:]; "
            code += "print(json.dumps(c.attack(a[0], a[1], float(a[2]), int(a[3]), int(a[4]))))"
            argv = [sys.executable, "-c", code, *arguments]
            answers.update(json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout))

        checks.start()
        loud, refused = _measure_neighbors(url, other, models, run)
        health = checks.stop()
        loud_memory = memory()
    return {
        "quiet": quiet.summary(),
        "beside_the_costly_client": loud.summary(),
        "relative_p99": round(loud.ms(0.99) / quiet.ms(0.99), 2),
        "searches": len(loud.seconds),
        "refused_searches": refused,
        "answers_to_the_costly_client": answers,
        "quiet_health": quiet_health,
        "health": health,
        "failed_health_checks": checks.failed,
        "api_memory_mb": {"before": quiet_memory, "after": loud_memory},
    }


def _measure_neighbors(url: str, key: str, models: int, during: Callable[[], object]) -> tuple[Times, int]:
    client = Neighbors(url, key, models)
    client.start()
    during()
    return client.stop(), client.refused


def _fit_geometry(catalog: Catalog) -> None:
    sample = catalog.data.vectors[:MAX_SAMPLE]
    with catalog.database.transaction() as session:
        geometries.create(session, SPACE_ID, GeometryKey(CENTERED), centered(sample), len(sample))


def _create_key(catalog: Catalog, name: str) -> str:
    return keys.create(catalog.database, KeyRequest(name, Role.SUBMITTER), "the benchmark")[1]


@contextmanager
def _api(catalog: Catalog, rate_limit: int) -> Iterator[tuple[str, Callable[[], int]]]:
    """The address of an API process, and a function that returns its resident memory in MB."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = in_this_environment((*api("127.0.0.1", port), "--log-level", "warning"))
    environment = {**catalog.env, "DELTADEX_RATE_LIMIT": str(rate_limit), "ADMIN_API_KEY": "an admin of the benchmark"}
    process = subprocess.Popen(argv, env=environment)
    url = f"http://127.0.0.1:{port}"

    def memory() -> int:
        with open(f"/proc/{process.pid}/statm") as file:
            return int(file.read().split()[1]) * 4 // 1024

    try:
        while True:
            try:
                if httpx.get(f"{url}/v1/models/owner-7/m-7/neighbors", timeout=60).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        yield url, memory
    finally:
        process.terminate()
        process.wait()


def main(
    n: Annotated[int, typer.Option(min=200, help="Models.")] = 50_000,
    d: Annotated[int, typer.Option(min=8, help="Dimensions of a vector.")] = 1_024,
    seconds: Annotated[float, typer.Option(min=1, help="Duration of each measurement.")] = 60,
    rate_limit: Annotated[int, typer.Option(min=0, help="Units a minute of each client; 0: no limit.")] = 6_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Measure the neighbors of one client beside another one that is as costly as it may be."""
    with open_catalog(Data(n, d)) as catalog:
        catalog.build()
        report = {"n": n, "d": d, "seconds": seconds, "rate_limit": rate_limit, "asked": ASKED}
        report |= measure(catalog, seconds, rate_limit)
    if as_json:
        typer.echo(json.dumps(report))
        return
    table = Table("client", "p50 ms", "p99 ms", "max ms")
    for name in ("quiet", "beside_the_costly_client"):
        table.add_row(name.replace("_", " "), str(report[name]["p50_ms"]), str(report[name]["p99_ms"]), "")
    for name, row in report["health"].items():
        table.add_row(f"/{name}", str(row["p50_ms"]), str(row["p99_ms"]), str(row["max_ms"]))
    Console().print(table, f"relative p99: {report['relative_p99']}", report["answers_to_the_costly_client"])


if __name__ == "__main__":
    typer.run(main)
