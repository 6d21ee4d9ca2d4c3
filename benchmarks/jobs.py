"""Measure the time of a claim and of a submission over HTTP while the queue is long.

    python -m benchmarks.jobs [--jobs N] [--claims N] [--posts N] [--clients K] [--json]

Fills an empty catalog on a real Postgres with N queued jobs of a hundred bases and of all priorities. All times are in
milliseconds.

- `claim`: a claim of eight jobs in one committed transaction; `claim_statement` is the time that Postgres reports for
  the claiming statement.
- `empty_transaction`: a transaction with `SELECT 1`, which shows how busy the machine is; `write`: a transaction that
  inserts one row, which shows how fast the disk is.
- `post`: `POST /v1/models` from one client to a separate API process; `concurrent_post`: from K clients at once.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
from sqlalchemy import text

from app.deployment import processes
from app.deployment.embedded import EmbeddedServers
from catalog.database import Database
from catalog.jobs.repository import claims, workers
from catalog.queue import ENCODE_QUEUE
from tests.support.keys import ADMIN_KEY, add_key

BATCH = 8
PORT = 18_641
WARM_UP = 20  # requests that are not counted


def fill(database: Database, jobs: int) -> None:
    with database.transaction() as session:
        session.execute(
            text(
                "INSERT INTO models (repo_id, owner, source) "
                "SELECT 'owner/m' || n, 'owner', 'hub' FROM generate_series(1, :jobs) AS n"
            ),
            {"jobs": jobs},
        )
        session.execute(
            text(
                "INSERT INTO jobs (model_id, base_hint, priority, available_at) SELECT id, 'base/' || id % 100, "
                "id % 3, now() - make_interval(secs => id / 100.0) FROM models"
            )
        )
    with database.autocommit() as connection:
        for table in ("models", "jobs", "job_events"):
            connection.execute(text(f"VACUUM ANALYZE {table}"))


def measure_claims(database: Database, rounds: int) -> list[float]:
    with database.transaction() as session:
        worker_id = workers.register(session, "benchmark", 0, "cpu")

    def claim() -> None:
        with database.transaction() as session:
            due = claims.find_next_due(session, ["base/1", "base/2"], 120)
            assert due is not None
            assert len(claims.claim(session, due.job_id, worker_id, BATCH)) == BATCH

    return [_milliseconds(claim) for _ in range(rounds)]


def measure_statement(database: Database, rounds: int) -> list[float]:
    """The time that Postgres reports for the claiming statement. Every claim is rolled back."""
    times = []
    for _ in range(rounds):
        with database.transaction() as session:
            due = claims.find_next_due(session, ["base/1", "base/2"], 120)
            assert due is not None
            parameters = {"job_id": due.job_id, "worker_id": 1, "more": BATCH - 1, "queue": ENCODE_QUEUE}
            explained = text(f"EXPLAIN (ANALYZE, FORMAT JSON) {claims.CLAIM.text}")
            [plan] = session.execute(explained, parameters).scalar_one()
            times.append(plan["Planning Time"] + plan["Execution Time"])
            session.rollback()
    return times


def measure_empty_transaction(database: Database, rounds: int) -> list[float]:
    def select_one() -> None:
        with database.transaction() as session:
            session.execute(text("SELECT 1"))

    return [_milliseconds(select_one) for _ in range(rounds)]


def measure_write(database: Database, rounds: int) -> list[float]:
    """Insert one row and commit: the lower bound of every change."""

    def write() -> None:
        with database.transaction() as session:
            session.execute(text("INSERT INTO paused_queues (name) VALUES (gen_random_uuid()::text)"))

    return [_milliseconds(write) for _ in range(rounds)]


def key_of(client: int) -> str:
    return f"the key of client {client}"


def measure_posts(url: str, posts: int, clients: int) -> list[float]:
    def submit(client: int) -> list[float]:
        with httpx.Client(base_url=url, headers={"X-API-Key": key_of(client)}) as http:

            def post(number: int) -> None:
                repo_id = f"new/of-{clients}-{client}-{number}"
                assert http.post("/v1/models", json={"repo_id": repo_id}).status_code == 202

            return [_milliseconds(partial(post, number)) for number in range(posts // clients)]

    with ThreadPoolExecutor(clients) as pool:
        return [seconds for times in pool.map(submit, range(clients)) for seconds in times[WARM_UP // clients :]]


@contextmanager
def api_process() -> Iterator[str]:
    command = processes.in_this_environment(processes.api("127.0.0.1", PORT))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{PORT}"
    try:
        while True:
            assert process.poll() is None, "the API did not start"
            try:
                httpx.get(f"{url}/healthz")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


def run(jobs: int, rounds: int, posts: int, clients: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder, EmbeddedServers(Path(folder) / "servers") as servers:
        environment = {"DATABASE_URL": servers.database_url, "REDIS_URL": servers.redis_url}
        os.environ.update(environment, DELTADEX_DATA_DIR=folder, DELTADEX_RATE_LIMIT="0", ADMIN_API_KEY=ADMIN_KEY)
        processes.migrate(servers.database_url)
        database = Database(servers.database_url)
        fill(database, jobs)
        for client in range(clients):
            add_key(database, key_of(client))
        with api_process() as url:
            sequential, concurrent = measure_posts(url, posts, 1), measure_posts(url, posts, clients)
        claim_times, statement_times = measure_claims(database, rounds), measure_statement(database, rounds)
        empty_times, write_times = measure_empty_transaction(database, rounds), measure_write(database, rounds)
        database.close()
    return {
        "jobs": jobs,
        "clients": clients,
        **_summary("empty_transaction", empty_times),
        **_summary("write", write_times),
        **_summary("claim_statement", statement_times),
        **_summary("claim", claim_times),
        **_summary("post", sequential),
        **_summary("concurrent_post", concurrent),
    }


def _milliseconds(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return 1_000 * (time.perf_counter() - start)


def _summary(name: str, milliseconds: list[float]) -> dict[str, float]:
    quantiles = statistics.quantiles(milliseconds, n=100)
    return {f"{name}_p50_ms": quantiles[49], f"{name}_p99_ms": quantiles[98], f"{name}_max_ms": max(milliseconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--claims", type=int, default=500)
    parser.add_argument("--posts", type=int, default=1_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    options = parser.parse_args()
    result = run(options.jobs, options.claims, options.posts, options.clients)
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:26} {value:.2f}" if isinstance(value, float) else f"{name:26} {value}")


if __name__ == "__main__":
    main()
