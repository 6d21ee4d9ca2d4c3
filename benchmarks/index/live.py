"""An index in use: vectors arrive, it is built anew, a process starts."""

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

INSERTS_A_SECOND = 100
SECONDS_OF_INSERTS = 20
SEARCHES_A_SECOND = 100
QUIET_SECONDS = 30
REBUILDS = 3


def freshness(catalog: Catalog) -> dict[str, Any]:
    """Seconds from a commit until a search finds the vector, at 100 commits a second, while other searches run."""
    context = multiprocessing.get_context("spawn")
    commits: SimpleQueue = context.SimpleQueue()
    count = INSERTS_A_SECOND * SECONDS_OF_INSERTS
    new = Data(count, catalog.data.d, seed=1).vectors
    with catalog.follower() as follower:
        index = follower.index(SPACE_ID, catalog.data.d)
        inserting = context.Process(
            target=insert, args=(catalog.servers.database_url, count, catalog.data.d, commits), daemon=True
        )
        inserting.start()
        searches = Searches(index, catalog.data.queries)
        searches.start()
        delays = [_until_found(index, vector, *commits.get()) for vector in new]
        inserting.join()
        summary = searches.stop().summary()
    return {
        "inserts_a_second": INSERTS_A_SECOND,
        "p50_s": round(float(np.median(delays)), 3),
        "p99_s": round(float(np.quantile(delays, 0.99)), 3),
        "searches_meanwhile": summary,
    }


def insert(database_url: str, count: int, dimension: int, commits: SimpleQueue) -> None:
    """Commit one new model at a time and tell when. Runs in a process of its own."""
    database = Database(database_url)
    due = time.monotonic()
    for number, vector in enumerate(Data(count, dimension, seed=1).vectors):
        model_id = fill(database, 1, dimension, [vector[None]], SPACE, prefix=f"new-{number}")
        commits.put((model_id, time.monotonic()))
        due += 1 / INSERTS_A_SECOND
        time.sleep(max(0, due - time.monotonic()))
    database.close()


def _until_found(index: SpaceIndex, vector: np.ndarray, model_id: int, committed: float) -> float:
    while index.search(vector, 1).model_ids.tolist() != [model_id]:
        time.sleep(0.005)
    return time.monotonic() - committed


class Searches(threading.Thread):
    """So many searches a second. One that is late does not make the next ones later."""

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
            due = max(due + 1 / SEARCHES_A_SECOND, time.monotonic())
            self._stopping.wait(max(0, due - time.monotonic()))

    def stop(self) -> Times:
        self._stopping.set()
        self.join()
        return self._times


def rebuild(catalog: Catalog) -> dict[str, Any]:
    """Latencies of searches while nothing else happens, and while the index is built anew from Postgres."""
    with catalog.follower() as follower:
        index = follower.index(SPACE_ID, catalog.data.d)
        quiet, busy = Times(), Times()
        for _ in range(REBUILDS):
            searches = Searches(index, catalog.data.queries)
            searches.start()
            time.sleep(QUIET_SECONDS / REBUILDS)
            quiet.seconds += searches.stop().seconds
            catalog.request_build()
            searches = Searches(index, catalog.data.queries)
            building = catalog.start_build()
            searches.start()
            if building.wait():
                raise RuntimeError("the build failed")
            busy.seconds += searches.stop().seconds
    return {
        "quiet": quiet.summary(),
        "during": busy.summary(),
        "searches": len(busy.seconds),
        "p99_of_the_quiet_one": round(busy.ms(0.99) / quiet.ms(0.99), 2),
    }


def startup(catalog: Catalog) -> dict[str, Any]:
    """Seconds from the start of an API process to its first answer, for two of them, and what they share."""
    processes, seconds = [], []
    try:
        for _ in range(2):
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            start = time.perf_counter()
            processes.append(_api(catalog, port))
            _first_answer(port)
            seconds.append(round(time.perf_counter() - start, 2))
        mapped = [_mapped(process.pid) for process in processes]
    finally:
        for process in processes:
            process.terminate()
            process.wait()
    return {"seconds": seconds, "mapped_index_mb": mapped}


def _api(catalog: Catalog, port: int) -> subprocess.Popen[bytes]:
    argv = in_this_environment((*api("127.0.0.1", port), "--log-level", "warning"))
    return subprocess.Popen(argv, env=catalog.env)


def _first_answer(port: int) -> None:
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


def _mapped(pid: int) -> dict[str, float]:
    """Of the mapped lists, MB in memory and MB that this process answers for when shared pages are divided up."""
    sizes, inside = {"Rss": 0, "Pss": 0}, False
    with open(f"/proc/{pid}/smaps") as maps:
        for line in maps:
            name, _, rest = line.partition(":")
            if "-" in name.split(" ")[0]:
                inside = line.rstrip().endswith("lists.faiss")
            elif inside and name in sizes:
                sizes[name] += int(rest.split()[0])
    return {name.lower(): round(kb / 1024, 1) for name, kb in sizes.items()}
