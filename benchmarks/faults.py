"""Check that jobs survive faults: real servers, two workers, and injected failures.

    python -m benchmarks.faults [--jobs N] [--kills N] [--flushes N] [--crashes N] [--seed N] [--quick] [--json]

Adapters of a pico base are submitted over HTTP. During the run, workers with running jobs are killed (SIGKILL) and
restarted by a supervisor, Valkey is emptied and crashed, Postgres is crashed, and the Hub answers 429 and 500, hangs,
and interrupts and stalls downloads. The faults are logged on stderr. `ok` means that every job is done, that each model
has one current revision with one vector in every space, and that all models are found by an API process that followed
the change feed throughout and by an index that is loaded from scratch. To the queue, a killed worker looks like the
death of a poison job, so `DELTADEX_MAX_WORKER_DEATHS` is 20 here (docs/jobs.md).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import redis
from sqlalchemy import text

from app.deployment import processes
from app.deployment.embedded import EmbeddedServers
from app.deployment.supervisor import Supervisor
from catalog.database import Database
from catalog.errors import DatabaseUnavailable
from catalog.index.follower import IndexFollower
from tests.support import pico
from tests.support.hub_server import Answer, ScriptedHub, free_port
from tests.support.keys import ADMIN_KEY, AS_ADMIN

TIMEOUT = 1_800.0  # seconds
POLL_INTERVAL = 0.05  # seconds
MAX_QUEUED = 100  # submissions continue during the whole run, so that they are exposed to faults as well
WORKERS = ("worker-1", "worker-2")
# faulty answers of the Hub per thousand requests
FAULTS_PER_THOUSAND = {"429": 20, "500": 20, "hang": 10, "cut": 40, "stall": 10}
SETTINGS = {
    "DELTADEX_MAX_WORKER_DEATHS": "20",
    "DELTADEX_HUB_TIMEOUT": "2",
    "DELTADEX_HUB_RATE": "600",
    "DELTADEX_HEARTBEAT_INTERVAL": "0.5",
    "DELTADEX_HEARTBEAT_TIMEOUT": "4",
    "DELTADEX_SWEEP_INTERVAL": "1",
    "DELTADEX_REDELIVER_AFTER": "2",
    "ADMIN_API_KEY": ADMIN_KEY,
}


class FaultyHub(ScriptedHub):
    """A Hub that fails at random; `faults` counts its failures by kind."""

    def __init__(self, seed: int) -> None:
        self.faults: Counter[str] = Counter()
        self._random = random.Random(seed)
        super().__init__()

    def _find(self, path: str, authorization: str = "") -> Answer:
        answer = super()._find(path, authorization)
        kind = self._draw()
        if kind is None:
            return answer
        if kind in ("cut", "stall") and "/resolve/" not in path:
            return answer
        self.faults[kind] += 1
        if kind == "429":
            return Answer(429, {"Retry-After": "1"})
        if kind in ("cut", "stall"):
            return replace(answer, **{f"{kind}_after": self._random.randrange(len(answer.body))})
        return Answer(500) if kind == "500" else Answer(hangs=True)

    def _draw(self) -> str | None:
        number = self._random.randrange(1_000)
        for kind, count in FAULTS_PER_THOUSAND.items():
            if number < count:
                return kind
            number -= count
        return None


@dataclass(frozen=True)
class Plan:
    jobs: int
    kills: int
    flushes: int
    crashes: int
    seed: int

    def faults(self) -> list[tuple[int, str]]:
        """(number of done jobs, kind) of each fault: spread evenly over the run, in random order."""
        generator = random.Random(self.seed)
        kinds = ["kill"] * self.kills + ["flush"] * self.flushes + ["crash"] * self.crashes
        generator.shuffle(kinds)
        step = self.jobs / (len(kinds) + 1)
        return [(int(step * (number + generator.random())), kind) for number, kind in enumerate(kinds)]


class Run:
    """A benchmark run: it submits jobs, injects faults, and reads the outcome from the tables."""

    def __init__(self, plan: Plan, servers: EmbeddedServers, url: str) -> None:
        self.plan = plan
        self.database = Database(servers.database_url)
        self.events: Counter[str] = Counter()
        self.started = time.monotonic()
        self._servers = servers
        self._url = url
        self._random = random.Random(plan.seed)
        self._failure: BaseException | None = None

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def rows(self, statement: str) -> list[Any]:
        """The rows of a statement, which is retried while Postgres is down."""
        while True:
            try:
                with self.database.autocommit() as connection:
                    return list(connection.execute(text(statement)))
            except DatabaseUnavailable:
                self._check_time()
                time.sleep(POLL_INTERVAL)

    def count(self, condition: str) -> int:
        return int(self.rows(f"SELECT count(*) FROM jobs WHERE {condition}")[0][0])

    def done(self) -> int:
        return self.count("state = 'done'")

    def wait_until(self, condition: Callable[[], Any]) -> Any:
        """Poll until the condition is true, and return its value."""
        while not (value := condition()):
            self._check_time()
            time.sleep(POLL_INTERVAL)
        return value

    def _check_time(self) -> None:
        if self._failure is not None:
            raise SystemExit(f"submitting failed: {self._failure!r}")
        if self.seconds() > TIMEOUT:
            states = self.rows("SELECT state, count(*) FROM jobs GROUP BY state")
            raise SystemExit(f"timed out after {TIMEOUT:.0f} s; jobs by state: {states}")

    @contextmanager
    def submitting(self) -> Iterator[None]:
        """Submit all adapters from a thread, as a client that retries when a server is down."""

        def submit() -> None:
            try:
                with httpx.Client(base_url=self._url, headers=AS_ADMIN, timeout=30) as http:
                    for number in range(self.plan.jobs):
                        self.wait_until(lambda: self.count("state = 'queued'") < MAX_QUEUED)
                        self.wait_until(partial(self._post, http, repo_id_of(number)))
            except BaseException as error:
                self._failure = error

        thread = threading.Thread(target=submit, name="submitting", daemon=True)
        thread.start()
        yield
        thread.join()

    def _post(self, http: httpx.Client, repo_id: str) -> bool:
        try:
            status = http.post("/v1/models", json={"repo_id": repo_id}).status_code
        except httpx.TransportError:
            status = 0
        self.events["submission retried"] += status not in (200, 202)
        assert status in (0, 200, 202, 503), f"{repo_id}: {status}"
        return status in (200, 202)

    def inject(self, kind: str) -> None:
        getattr(self, f"_{kind}")()
        self.events[kind] += 1

    def _kill(self) -> None:
        """Kill a random worker that is running jobs."""
        pid, job_count = self._random.choice(self.wait_until(self._busy_workers))
        os.kill(pid, signal.SIGKILL)
        self._log(f"worker {pid} killed while running {job_count} jobs")

    def _busy_workers(self) -> list[tuple[int, int]]:
        job_counts = self.rows(
            "SELECT pid, count(*) FROM jobs JOIN workers ON workers.id = worker_id "
            "WHERE state IN ('fetching', 'encoding') AND stopped_at IS NULL GROUP BY pid ORDER BY pid"
        )
        running = {
            child.pid
            for child in psutil.Process().children()
            if child.status() != psutil.STATUS_ZOMBIE and "workers.main" in child.cmdline()
        }
        return [(pid, count) for pid, count in job_counts if pid in running]

    def _flush(self) -> None:
        with redis.Redis.from_url(self._servers.redis_url) as broker:
            broker.flushall()
        self._servers.restart_valkey()
        self._log("Valkey emptied, crashed and restarted")

    def _crash(self) -> None:
        self._servers.restart_postgres()
        self._log("Postgres crashed and restarted")

    def _log(self, event: str) -> None:
        print(f"{self.seconds():7.1f} s  {self.done():4} done  {event}", file=sys.stderr, flush=True)

    def api_counts(self) -> list[int]:
        """The number of models in each space that the running API process finds."""
        return [self._api_count(key) for _, key, _ in self.spaces()]

    def _api_count(self, key: str) -> int:
        repo_id, query = repo_id_of(0), {"space": key, "k": 1_000, "include_low_confidence": True}
        try:
            response = httpx.get(f"{self._url}/v1/models/{repo_id}/neighbors", params=query, timeout=30)
        except httpx.TransportError:
            return 0
        repo_ids = {neighbor["repo_id"] for neighbor in response.json().get("neighbors", [])}
        return len(repo_ids | {repo_id}) if response.status_code == 200 else 0

    def fresh_index_counts(self) -> list[int]:
        """The number of vectors in each space of an index that is loaded from the start of the change feed."""
        follower = IndexFollower(self.database, 0.1)
        follower.start()
        self.wait_until(lambda: follower.loaded)
        try:
            return [len(follower.index(space_id, size)) for space_id, _, size in self.spaces()]
        finally:
            follower.stop()

    def spaces(self) -> list[tuple[int, str, int]]:
        return [tuple(row) for row in self.rows("SELECT id, key, dimension FROM spaces ORDER BY id")]

    def report(self) -> dict[str, Any]:
        """Check the outcome, and summarize the run."""
        jobs = self.plan.jobs
        spaces = len(self.spaces())
        [(attempts, max_attempts, worker_deaths)] = self.rows(
            "SELECT sum(jsonb_array_length(history)), max(jsonb_array_length(history)), sum(worker_deaths) FROM jobs"
        )
        outcomes, errors = self._attempts("outcome"), self._attempts("code")
        checks = {
            "jobs": self.count("true") == jobs,
            "done": self.done() == jobs,
            "done once": outcomes.get("done") == jobs,
            "one current revision": self._all_groups_of_one(
                "SELECT count(*) FROM revisions WHERE current GROUP BY model_id", jobs
            ),
            "no other revision": self._all_groups_of_one("SELECT count(*) FROM revisions GROUP BY model_id", jobs),
            "one vector in each space": self._all_groups_of_one(
                "SELECT count(*) FROM vectors WHERE NOT deleted GROUP BY revision_id, space_id", jobs * spaces
            ),
            "two spaces": spaces == 2,
            "all found by the API": self._eventually_equal(self.api_counts, [jobs] * spaces),
            "all in a fresh index": self.fresh_index_counts() == [jobs] * spaces,
        }
        return {
            "jobs": jobs,
            "seed": self.plan.seed,
            "done": self.done(),
            "seconds": round(self.seconds(), 1),
            "attempts": int(attempts),
            "max_attempts": max_attempts,
            "attempt_outcomes": outcomes,
            "errors": errors,
            "worker_deaths": int(worker_deaths),
            "faults": dict(self.events),
            "failed_checks": [name for name, passed in checks.items() if not passed],
            "ok": all(checks.values()),
        }

    def _attempts(self, field: str) -> dict[str, int]:
        """The number of attempts by the value of a field in the histories of the jobs."""
        lines = f"SELECT line->>'{field}' AS value FROM jobs, jsonb_array_elements(history) AS line"
        counted = f"SELECT value, count(*) FROM ({lines}) WHERE value IS NOT NULL GROUP BY value ORDER BY value"
        return {value: count for value, count in self.rows(counted)}

    def _all_groups_of_one(self, statement: str, groups: int) -> bool:
        """Whether a grouping statement has `groups` groups, each with one row."""
        return [count for (count,) in self.rows(statement)] == [1] * groups

    def _eventually_equal(self, read: Callable[[], Any], expected: Any, limit: float = 10.0) -> bool:
        deadline = time.monotonic() + limit
        while read() != expected:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_INTERVAL)
        return True


def repo_id_of(number: int) -> str:
    return f"maker/m{number}"


def measure(folder: Path, plan: Plan) -> dict[str, Any]:
    hub = FaultyHub(plan.seed)
    publish(hub, folder / "adapters", plan.jobs)
    pico.make_base(folder / "data" / "bases" / pico.BASE_ID)
    port = free_port()
    with ExitStack() as stack:
        stack.callback(hub.stop)
        servers = stack.enter_context(EmbeddedServers(folder / "servers"))
        environment = {
            **os.environ,
            **SETTINGS,
            "DATABASE_URL": servers.database_url,
            "REDIS_URL": servers.redis_url,
            "HF_ENDPOINT": hub.url,
            "DELTADEX_DATA_DIR": str(folder / "data"),
            "DELTADEX_RATE_LIMIT": "0",
        }
        processes.migrate(servers.database_url)
        # short restart delays, because workers are killed on purpose
        supervisor = stack.enter_context(
            Supervisor(folder / "logs", environment, check=servers.ensure_running, longest_delay=2.0)
        )
        supervisor.start("api", processes.in_this_environment(processes.api("127.0.0.1", port)))
        supervisor.start("beat", processes.in_this_environment(processes.BEAT))
        for name in WORKERS:
            supervisor.start(name, processes.in_this_environment(processes.WORKER))
        run = Run(plan, servers, f"http://127.0.0.1:{port}")
        with run.submitting():
            run.wait_until(run.done)
            run.wait_until(lambda: all(run.api_counts()))  # from here on the API follows the feed
            for done, kind in plan.faults():
                run.wait_until(lambda done=done: run.done() >= done)
                run.inject(kind)
        run.wait_until(lambda: run.count("state IN ('done', 'failed', 'cancelled')") == plan.jobs)
        run.events.update({f"hub {kind}": count for kind, count in hub.faults.items()})
        report = run.report()
        run.database.close()
    return report


def publish(hub: ScriptedHub, folder: Path, jobs: int) -> None:
    for number in range(jobs):
        adapter = pico.make_adapter(folder / str(number), seed=number)
        hub.publish(repo_id_of(number), {file.name: file.read_bytes() for file in adapter.iterdir()})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--flushes", type=int, default=3, help="number of times that Valkey is emptied and crashed")
    parser.add_argument("--crashes", type=int, default=3, help="number of crashes of Postgres")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="40 jobs and three faults")
    parser.add_argument("--folder", type=Path, help="keep the logs in this folder")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    options = parser.parse_args()
    plan = Plan(options.jobs, options.kills, options.flushes, options.crashes, options.seed)
    if options.quick:
        plan = Plan(40, 1, 1, 1, options.seed)
    with tempfile.TemporaryDirectory(prefix="deltadex-") as name:
        report = measure(options.folder or Path(name), plan)
    print(json.dumps(report) if options.json else "\n".join(f"{name:16} {value}" for name, value in report.items()))
    if not report["ok"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
