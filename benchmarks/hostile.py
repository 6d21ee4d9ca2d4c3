"""Check that hostile repos hurt nobody: hostile and good repos, a real Hub protocol, real servers and two workers.

    python -m benchmarks.hostile [--repos N] [--good N] [--seed N] [--folder DIR] [--json]

Hostile repos (`benchmarks/hostile_repos.py`) and good ones are submitted over HTTP in random order. `ok` means that
each hostile repo failed with an error of its own and each good one has the vectors that this process computed from its
folder; that no worker ended, although one that uses more than `WORKER_MEMORY` with its child processes is killed; and
that no good job was tried more than twice. Without `--json`, a table shows the errors of each kind of hostile repo.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from sqlalchemy import text
from transformers.utils import logging

from app.deployment import processes
from app.deployment.embedded import EmbeddedServers
from app.deployment.supervisor import Supervisor
from benchmarks import hostile_repos
from catalog.database import Database
from catalog.errors import CatalogError
from catalog.spaces.probes import load_probes
from catalog.vectors.repository import vectors
from tests.support import pico
from tests.support.hub_server import Answer, ScriptedHub, free_port
from tests.support.keys import ADMIN_KEY, AS_ADMIN
from workers.encoding.encoder import Encoder
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import read_finetune

GOOD_OWNER = "good"
WORKERS = ("worker-1", "worker-2")
WORKER_MEMORY = 6 * 2**30  # bytes of a worker and its child processes
WATCH_INTERVAL = 0.1  # seconds
TIMEOUT = 1_800.0  # seconds
LEAST_COSINE = 0.99999
MAX_GOOD_ATTEMPTS = 2
# codes that say that something went wrong in Deltadex, not in the repo
UNTYPED = {None, "internal_error", "unexpected", "worker_lost", "database_unavailable"}
SETTINGS = {
    "ADMIN_API_KEY": ADMIN_KEY,
    "DELTADEX_RATE_LIMIT": "0",
    "DELTADEX_HUB_RATE": "0",
    "DELTADEX_HUB_TIMEOUT": "2",
    "DELTADEX_MAX_FILE_BYTES": str(hostile_repos.MAX_FILE_BYTES),
    "DELTADEX_MAX_ATTEMPTS": "3",
    "DELTADEX_RETRY_BASE": "0.2",
    "DELTADEX_SWEEP_INTERVAL": "1",
    "DELTADEX_REDELIVER_AFTER": "2",
    "DELTADEX_FETCH_DEADLINE": "10",
    "DELTADEX_READER_SECONDS": "20",
    "DELTADEX_LOAD_DEADLINE": "60",
    "DELTADEX_FORWARD_DEADLINE": "60",
}


class SlowHub(ScriptedHub):
    """A Hub that sends some files a byte at a time."""

    interval = 0.5  # seconds between two bytes

    def __init__(self) -> None:
        self.trickling: set[str] = set()  # repos
        super().__init__()

    def _write(self, stream: Any, path: str, body: memoryview, answer: Answer) -> None:
        if not any(path.startswith(f"/{repo_id}/resolve/") for repo_id in self.trickling):
            super()._write(stream, path, body, answer)
            return
        for position in range(len(body)):
            stream.write(body[position : position + 1])
            stream.flush()
            if self._released.wait(self.interval):
                return


@dataclass
class Watchdog:
    """Measures the memory of the workers, and kills one that uses more than `WORKER_MEMORY`."""

    killed: int = 0
    peak: int = 0  # bytes
    pids: set[int] = field(default_factory=set)  # of all workers that ran

    @contextmanager
    def watching(self) -> Iterator[None]:
        stopping = threading.Event()
        thread = threading.Thread(target=self._watch, args=(stopping,), name="watchdog", daemon=True)
        thread.start()
        yield
        stopping.set()
        thread.join()

    def _watch(self, stopping: threading.Event) -> None:
        while not stopping.wait(WATCH_INTERVAL):
            for child in psutil.Process().children():
                with suppress(psutil.Error):
                    if child.status() != psutil.STATUS_ZOMBIE and "workers.main" in child.cmdline():
                        self._check(child)

    def _check(self, worker: psutil.Process) -> None:
        self.pids.add(worker.pid)
        memory = worker.memory_info().rss
        for child in worker.children(recursive=True):
            with suppress(psutil.Error):
                memory += child.memory_info().rss
        self.peak = max(self.peak, memory)
        if memory > WORKER_MEMORY:
            worker.kill()
            self.killed += 1


@dataclass(frozen=True)
class Outcome:
    """How the job of a repo ended."""

    state: str
    code: str | None
    attempts: int


class Run:
    """Submits the repos, waits for their jobs and compares the outcomes with what they must be."""

    def __init__(self, database: Database, url: str) -> None:
        self._database = database
        self._url = url

    def submit(self, repo_ids: list[str]) -> None:
        with httpx.Client(base_url=self._url, headers=AS_ADMIN, timeout=30) as http:
            for repo_id in repo_ids:
                http.post("/v1/models", json={"repo_id": repo_id}).raise_for_status()

    def wait(self, jobs: int) -> float:
        """Wait until all jobs have ended. Returns the seconds."""
        started = time.monotonic()
        while (ended := sum(outcome.state in ("done", "failed") for outcome in self.outcomes().values())) < jobs:
            if time.monotonic() > started + TIMEOUT:
                print(f"timed out: {ended} of {jobs} jobs have ended", file=sys.stderr)
                break
            time.sleep(0.5)
        return time.monotonic() - started

    def outcomes(self) -> dict[str, Outcome]:
        statement = (
            "SELECT repo_id, jobs.state, error_code, jsonb_array_length(history) FROM jobs "
            "JOIN models ON models.id = model_id ORDER BY jobs.id"
        )
        with self._database.autocommit() as connection:
            return {repo_id: Outcome(*columns) for repo_id, *columns in connection.execute(text(statement))}

    def least_cosine(self, repo_id: str, expected: Mapping[str, np.ndarray]) -> float:
        """The lowest cosine of the stored vectors of a model to the expected ones; -1 if one is missing."""
        cosines = [-1.0] if not expected else []
        for feature, vector in expected.items():
            try:
                with self._database.transaction() as session:
                    stored = vectors.get_encoding(session, repo_id, features=(feature,)).vector
            except CatalogError:
                return -1.0
            cosines.append(float(stored @ vector / np.linalg.norm(stored) / np.linalg.norm(vector)))
        return min(cosines)


def publish_good(hub: ScriptedHub, folder: Path, base: Path, count: int) -> dict[str, Mapping[str, np.ndarray]]:
    """Publish good adapters, and compute the vectors of each without a worker."""
    encoder = Encoder(ResidentBase.load(base, pico.BASE_ID, "0"), load_probes())
    expected = {}
    for number in range(count):
        adapter = pico.make_adapter(folder / str(number), seed=1_000 + number)
        [encoded] = encoder.encode([read_finetune(adapter)])
        assert not isinstance(encoded, CatalogError)
        repo_id = f"{GOOD_OWNER}/m{number}"
        expected[repo_id] = encoded.vectors
        hub.publish(repo_id, hostile_repos.read(adapter))
    return expected


def measure(folder: Path, repos: int, good: int, seed: int) -> dict[str, Any]:
    hub = SlowHub()
    with ExitStack() as stack:
        stack.callback(hub.stop)
        kinds = hostile_repos.publish(hub, folder / "hostile", repos, seed)
        hub.trickling = {repo_id for repo_id, kind in kinds.items() if kind == hostile_repos.TRICKLING}
        base = pico.make_base(folder / "data" / "bases" / pico.BASE_ID)
        expected = publish_good(hub, folder / "good", base, good)
        servers = stack.enter_context(EmbeddedServers(folder / "servers"))
        processes.migrate(servers.database_url)
        port = free_port()
        environment = {
            **os.environ,
            **SETTINGS,
            "DATABASE_URL": servers.database_url,
            "REDIS_URL": servers.redis_url,
            "HF_ENDPOINT": hub.url,
            "DELTADEX_DATA_DIR": str(folder / "data"),
        }
        watchdog = Watchdog()
        stack.enter_context(watchdog.watching())
        supervisor = stack.enter_context(Supervisor(folder / "logs", environment, longest_delay=2.0))
        supervisor.start("api", processes.in_this_environment(processes.api("127.0.0.1", port)))
        supervisor.start("beat", processes.in_this_environment(processes.BEAT))
        for name in WORKERS:
            supervisor.start(name, processes.in_this_environment(processes.WORKER))
        database = Database(servers.database_url)
        stack.callback(database.close)
        run = Run(database, f"http://127.0.0.1:{port}")
        wait_for_api(f"http://127.0.0.1:{port}")
        repo_ids = [*kinds, *expected]
        random.Random(seed).shuffle(repo_ids)
        run.submit(repo_ids)
        seconds = run.wait(len(repo_ids))
        return {"seed": seed, "seconds": round(seconds, 1), **report(run, kinds, expected, watchdog)}


def report(
    run: Run, kinds: Mapping[str, str], expected: Mapping[str, Mapping[str, np.ndarray]], watchdog: Watchdog
) -> dict[str, Any]:
    outcomes = run.outcomes()
    codes: dict[str, Counter[str]] = {kind: Counter() for kind in kinds.values()}
    for repo_id, kind in kinds.items():
        codes[kind][outcomes[repo_id].code or outcomes[repo_id].state] += 1
    typed = [repo_id for repo_id in kinds if _is_typed(outcomes[repo_id])]
    cosines = {repo_id: run.least_cosine(repo_id, vectors) for repo_id, vectors in expected.items()}
    right = [repo_id for repo_id, cosine in cosines.items() if cosine >= LEAST_COSINE]
    attempts = max((outcomes[repo_id].attempts for repo_id in expected), default=0)
    checks = {
        "typed errors": len(typed) == len(kinds),
        "right vectors": len(right) == len(expected),
        "no worker lost": len(watchdog.pids) == len(WORKERS),
        "no good job tried more than twice": attempts <= MAX_GOOD_ATTEMPTS,
    }
    return {
        "hostile": len(kinds),
        "kinds": len(codes),
        "typed_errors": len(typed),
        "good": len(expected),
        "right_vectors": len(right),
        "least_cosine": min(cosines.values(), default=None),
        "most_attempts_of_a_good_job": attempts,
        "workers": len(watchdog.pids),
        "killed_for_memory": watchdog.killed,
        "peak_worker_mb": round(watchdog.peak / 2**20),
        "codes": {kind: dict(counts) for kind, counts in codes.items()},
        "untyped": {repo_id: kinds[repo_id] for repo_id in kinds if repo_id not in typed},
        "failed_checks": [name for name, passed in checks.items() if not passed],
        "ok": all(checks.values()),
    }


def _is_typed(outcome: Outcome) -> bool:
    return outcome.state == "failed" and outcome.code not in UNTYPED


def wait_for_api(url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        time.sleep(0.1)
    raise SystemExit("the API did not start")


def show(result: Mapping[str, Any]) -> None:
    for name, value in result.items():
        if name != "codes":
            print(f"{name:28} {value}")
    print()
    for kind, counts in result["codes"].items():
        print(f"{kind:44} {', '.join(f'{code} x {count}' for code, count in counts.items())}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repos", type=int, default=200, help="hostile repos")
    parser.add_argument("--good", type=int, default=200, help="good repos")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keep the logs in this folder")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    options = parser.parse_args()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="deltadex-") as name:
        result = measure(options.folder or Path(name), options.repos, options.good, options.seed)
    if options.json:
        print(json.dumps(result))
    else:
        show(result)
    if not result["ok"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
