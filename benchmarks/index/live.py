"""The index in operation: inserts, rebuilds, and the startup of an API process."""

from __future__ import annotations

import http.client
import multiprocessing
import socket
import subprocess
import threading
import time
from multiprocessing.queues import SimpleQueue
from typing import Any

import numpy as np

from app.deployment.processes import api, in_this_environment
from benchmarks.filling import SPACE, fill
from benchmarks.index.catalogs import SPACE_ID, Catalog
from benchmarks.index.data import Data
from benchmarks.index.measuring import K, Times
from catalog.database import Database
from catalog.index.space_index import SpaceIndex

INSERTS_PER_SECOND = 100
INSERT_SECONDS = 20
SEARCHES_PER_SECOND = 100
IDLE_SECONDS = 30
REBUILDS = 3


def freshness(catalog: Catalog) -> dict[str, Any]:
    """Seconds from a commit until a search finds the vector, at 100 commits per second during other searches."""
    context = multiprocessing.get_context("spawn")
    commits: SimpleQueue = context.SimpleQueue()
    count = INSERTS_PER_SECOND * INSERT_SECONDS
    new = Data(count, catalog.data.d, seed=1).vectors
    with catalog.follower() as follower:
        index = follower.index(SPACE_ID, catalog.data.d)
        inserter = context.Process(
            target=insert, args=(catalog.servers.database_url, count, catalog.data.d, commits), daemon=True
        )
        inserter.start()
        searches = Searches(index, catalog.data.queries)
        searches.start()
        delays = [_wait_until_found(index, vector, *commits.get()) for vector in new]
        inserter.join()
        summary = searches.stop().summary()
    return {
        "inserts_per_second": INSERTS_PER_SECOND,
        "p50_s": round(float(np.median(delays)), 3),
        "p99_s": round(float(np.quantile(delays, 0.99)), 3),
        "concurrent_searches": summary,
    }


def insert(database_url: str, count: int, dimension: int, commits: SimpleQueue) -> None:
    """Commit one new model at a time, and report the time of each commit. Runs in a subprocess."""
    database = Database(database_url)
    due = time.monotonic()
    for number, vector in enumerate(Data(count, dimension, seed=1).vectors):
        model_id = fill(database, 1, dimension, [vector[None]], SPACE, prefix=f"new-{number}")
        commits.put((model_id, time.monotonic()))
        due += 1 / INSERTS_PER_SECOND
        time.sleep(max(0, due - time.monotonic()))
    database.close()


def _wait_until_found(index: SpaceIndex, vector: np.ndarray, model_id: int, committed: float) -> float:
    while index.search(vector, 1).model_ids.tolist() != [model_id]:
        time.sleep(0.005)
    return time.monotonic() - committed


class Searches(threading.Thread):
    """A thread that searches at a fixed rate. A slow search does not delay the schedule of later ones."""

    def __init__(self, index: SpaceIndex, queries: np.ndarray) -> None:
        super().__init__(daemon=True)
        self._index, self._queries = index, queries
        self._times = Times()
        self._stopping = threading.Event()

    def run(self) -> None:
        due = time.monotonic()
        while not self._stopping.is_set():
            query = self._queries[len(self._times.seconds) % len(self._queries)]
            self._times.measure(lambda query=query: self._index.search(query, K).model_ids)
            due = max(due + 1 / SEARCHES_PER_SECOND, time.monotonic())
            self._stopping.wait(max(0, due - time.monotonic()))

    def stop(self) -> Times:
        self._stopping.set()
        self.join()
        return self._times


def rebuild(catalog: Catalog) -> dict[str, Any]:
    """Latencies of searches while the machine is idle, and while the index is rebuilt from Postgres."""
    with catalog.follower() as follower:
        index = follower.index(SPACE_ID, catalog.data.d)
        idle, rebuilding = Times(), Times()
        for _ in range(REBUILDS):
            searches = Searches(index, catalog.data.queries)
            searches.start()
            time.sleep(IDLE_SECONDS / REBUILDS)
            idle.seconds += searches.stop().seconds
            catalog.request_build()
            searches = Searches(index, catalog.data.queries)
            builder = catalog.start_build()
            searches.start()
            if builder.wait():
                raise RuntimeError("the build failed")
            rebuilding.seconds += searches.stop().seconds
    return {
        "idle": idle.summary(),
        "rebuilding": rebuilding.summary(),
        "searches": len(rebuilding.seconds),
        "relative_p99": round(rebuilding.ms(0.99) / idle.ms(0.99), 2),
    }


def startup(catalog: Catalog) -> dict[str, Any]:
    """Seconds from the start of an API process to its first response, for two processes, and their shared memory."""
    processes, seconds = [], []
    try:
        for _ in range(2):
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            start = time.perf_counter()
            processes.append(_start_api(catalog, port))
            _wait_for_response(port)
            seconds.append(round(time.perf_counter() - start, 2))
        mapped = [_mapped_index_mb(process.pid) for process in processes]
    finally:
        for process in processes:
            process.terminate()
            process.wait()
    return {"seconds": seconds, "mapped_index_mb": mapped}


def _start_api(catalog: Catalog, port: int) -> subprocess.Popen[bytes]:
    argv = in_this_environment((*api("127.0.0.1", port), "--log-level", "warning"))
    return subprocess.Popen(argv, env={**catalog.env, "DELTADEX_RATE_LIMIT": "0"})


def _wait_for_response(port: int) -> None:
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("GET", "/v1/models/owner-7/m-7/neighbors")
            response = connection.getresponse()
            body = response.read()
            if response.status == 200:
                return
            if response.status != 503:
                raise RuntimeError(f"{response.status}: {body!r}")
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.02)


def _mapped_index_mb(pid: int) -> dict[str, float]:
    """Resident (Rss) and proportional (Pss) size of the mapped index lists of a process, in MB."""
    sizes, in_lists = {"Rss": 0, "Pss": 0}, False
    with open(f"/proc/{pid}/smaps") as maps:
        for line in maps:
            name, _, rest = line.partition(":")
            if "-" in name.split(" ")[0]:
                in_lists = line.rstrip().endswith("lists.faiss")
            elif in_lists and name in sizes:
                sizes[name] += int(rest.split()[0])
    return {name.lower(): round(kb / 1024, 1) for name, kb in sizes.items()}
