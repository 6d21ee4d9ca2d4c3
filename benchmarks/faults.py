"""Whether jobs survive whatever may go wrong around them: real servers, two workers, and faults without an end.

    python -m benchmarks.faults [--jobs N] [--kills N] [--flushes N] [--crashes N] [--seed N] [--quick] [--json]

Adapters of a pico base are submitted over HTTP while workers are killed with jobs in their hands (-9; a supervisor
starts them again), Valkey is emptied and crashed, Postgres is crashed, and the Hub answers 429 and 500, hangs, and cuts
and stalls downloads. What happens when is told on stderr. `ok`: every job is done, each model has one current revision
and one vector for it in every space, an API process that followed the feed all along finds all of them, and so does an
index that is read anew. A kill from outside looks like a deadly job, so `DELTADEX_DEADLY` is 20 here (docs/jobs.md).
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
from catalog.index.follower import Follower
from tests.support import pico
from tests.support.hub_server import Answer, ScriptedHub, free_port

LIMIT = 1_800.0  # seconds until it is given up
LOOK = 0.05
AHEAD = 100  # jobs that wait while more are submitted, so that submissions meet faults too
WORKERS = ("worker-1", "worker-2")
# How many requests in a thousand the Hub answers so
SPOILED = {"429": 20, "500": 20, "hang": 10, "cut": 40, "stall": 10}
SETTINGS = {
    "DELTADEX_DEADLY": "20",
    "DELTADEX_HUB_TIMEOUT": "2",
    "DELTADEX_HUB_RATE": "100",
    "DELTADEX_HEARTBEAT_INTERVAL": "0.5",
    "DELTADEX_HEARTBEAT_LIMIT": "4",
    "DELTADEX_SWEEP_INTERVAL": "1",
    "DELTADEX_RING_AGAIN_AFTER": "2",
}


class SpoiltHub(ScriptedHub):
    """A Hub that is not well; `spoilt` counts how it failed."""

    def __init__(self, seed: int) -> None:
        self.spoilt: Counter[str] = Counter()
        self.well = threading.Event()
        self._chance = random.Random(seed)
        super().__init__()

    def _find(self, path: str, authorization: str = "") -> Answer:
        answer = super()._find(path, authorization)
        kind = self._draw()
        if kind is None or self.well.is_set():
            return answer
        if kind in ("cut", "stall") and "/resolve/" not in path:
            return answer
        self.spoilt[kind] += 1
        if kind == "429":
            return Answer(429, {"Retry-After": "1"})
        if kind in ("cut", "stall"):
            return replace(answer, **{kind: self._chance.randrange(len(answer.body))})
        return Answer(500) if kind == "500" else Answer(silent=True)

    def _draw(self) -> str | None:
        drawn = self._chance.randrange(1_000)
        for kind, share in SPOILED.items():
            if drawn < share:
                return kind
            drawn -= share
        return None


@dataclass(frozen=True)
class Plan:
    jobs: int
    kills: int
    flushes: int
    crashes: int
    seed: int

    def faults(self) -> list[tuple[int, str]]:
        """What goes wrong, each when so many jobs are done: evenly over the run, in an order by chance."""
        chance = random.Random(self.seed)
        kinds = ["kill"] * self.kills + ["flush"] * self.flushes + ["crash"] * self.crashes
        chance.shuffle(kinds)
        step = self.jobs / (len(kinds) + 1)
        return [(int(step * (number + chance.random())), kind) for number, kind in enumerate(kinds)]


class Run:
    """Everything that runs, and what is known of it from the tables."""

    def __init__(self, plan: Plan, servers: EmbeddedServers, url: str) -> None:
        self.plan = plan
        self.database = Database(servers.database_url)
        self.happened: Counter[str] = Counter()
        self.started = time.monotonic()
        self._servers = servers
        self._url = url
        self._chance = random.Random(plan.seed)
        self._failure: BaseException | None = None

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def rows(self, statement: str) -> list[Any]:
        """Of one statement; asked again while Postgres is away."""
        while True:
            try:
                with self.database.reading() as connection:
                    return list(connection.execute(text(statement)))
            except DatabaseUnavailable:
                self._check_time()
                time.sleep(LOOK)

    def count(self, condition: str) -> int:
        return int(self.rows(f"SELECT count(*) FROM jobs WHERE {condition}")[0][0])

    def done(self) -> int:
        return self.count("state = 'done'")

    def until(self, look: Callable[[], Any]) -> Any:
        while not (found := look()):
            self._check_time()
            time.sleep(LOOK)
        return found

    def _check_time(self) -> None:
        if self._failure is not None:
            raise SystemExit(f"submitting failed: {self._failure!r}")
        if self.seconds() > LIMIT:
            raise SystemExit(f"it took too long: {self.rows('SELECT state, count(*) FROM jobs GROUP BY state')}")

    @contextmanager
    def submitting(self) -> Iterator[None]:
        """Meanwhile a thread submits all adapters, as a client does that asks again when something is away."""

        def submit() -> None:
            try:
                with httpx.Client(base_url=self._url, timeout=30) as http:
                    for number in range(self.plan.jobs):
                        self.until(lambda: self.count("state = 'queued'") < AHEAD)
                        self.until(lambda number=number: self._post(http, name_of(number)))
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
        self.happened["submission repeated"] += status not in (200, 202)
        assert status in (0, 200, 202, 503), f"{repo_id}: {status}"
        return status in (200, 202)

    def fault(self, kind: str) -> None:
        getattr(self, f"_{kind}")()
        self.happened[kind] += 1

    def _kill(self) -> None:
        """Of the workers that have jobs in their hands, one by chance."""
        worker, held = self._chance.choice(self.until(self._at_work))
        os.kill(worker, signal.SIGKILL)
        self._tell(f"worker {worker} killed with {held} jobs in its hands")

    def _at_work(self) -> list[tuple[int, int]]:
        held = self.rows(
            "SELECT pid, count(*) FROM jobs JOIN workers ON workers.id = worker_id "
            "WHERE state IN ('fetching', 'encoding') AND stopped_at IS NULL GROUP BY pid ORDER BY pid"
        )
        running = {
            child.pid
            for child in psutil.Process().children()
            if child.status() != psutil.STATUS_ZOMBIE and "workers.main" in child.cmdline()
        }
        return [(pid, count) for pid, count in held if pid in running]

    def _flush(self) -> None:
        with redis.Redis.from_url(self._servers.redis_url) as broker:
            broker.flushall()
        self._servers.restart_valkey()
        self._tell("Valkey emptied, crashed and started again")

    def _crash(self) -> None:
        self._servers.restart_postgres()
        self._tell("Postgres crashed and started again")

    def _tell(self, what: str) -> None:
        print(f"{self.seconds():7.1f} s  {self.done():4} done  {what}", file=sys.stderr, flush=True)

    def found_by_the_api(self) -> list[int]:
        """Of each space the models that the API process finds, which has followed the feed all along."""
        return [self._found(key) for _, key, _ in self.spaces()]

    def _found(self, key: str) -> int:
        name, query = name_of(0), {"space": key, "k": 1_000, "unconfident": True}
        try:
            answer = httpx.get(f"{self._url}/v1/models/{name}/neighbors", params=query, timeout=30)
        except httpx.TransportError:
            return 0
        names = {found["repo_id"] for found in answer.json().get("neighbors", [])}
        return len(names | {name}) if answer.status_code == 200 else 0

    def found_anew(self) -> list[int]:
        """Of each space the vectors in an index that is read from the first change on."""
        follower = Follower(self.database, 0.1)
        follower.start()
        self.until(lambda: follower.loaded)
        try:
            return [len(follower.index(space_id, size)) for space_id, _, size in self.spaces()]
        finally:
            follower.stop()

    def spaces(self) -> list[tuple[int, str, int]]:
        return [tuple(row) for row in self.rows("SELECT id, key, dimension FROM spaces ORDER BY id")]

    def verdict(self) -> dict[str, Any]:
        jobs = self.plan.jobs
        spaces = len(self.spaces())
        [(attempts, most, deaths)] = self.rows(
            "SELECT sum(jsonb_array_length(history)), max(jsonb_array_length(history)), sum(deaths) FROM jobs"
        )
        ends, errors = self._attempts("outcome"), self._attempts("code")
        held = {
            "jobs": self.count("true") == jobs,
            "done": self.done() == jobs,
            "done once": ends.get("done") == jobs,
            "one current revision": self._each("SELECT count(*) FROM revisions WHERE current GROUP BY model_id", jobs),
            "no other revision": self._each("SELECT count(*) FROM revisions GROUP BY model_id", jobs),
            "one vector in each space": self._each(
                "SELECT count(*) FROM vectors WHERE NOT deleted GROUP BY revision_id, space_id", jobs * spaces
            ),
            "two spaces": spaces == 2,
            "found by the API": self._eventually(self.found_by_the_api, [jobs] * spaces),
            "found anew": self.found_anew() == [jobs] * spaces,
        }
        return {
            "jobs": jobs,
            "seed": self.plan.seed,
            "done": self.done(),
            "seconds": round(self.seconds(), 1),
            "attempts": int(attempts),
            "most_attempts": most,
            "attempts_ended": ends,
            "errors": errors,
            "deaths": int(deaths),
            "faults": dict(self.happened),
            "broken": [name for name, holds in held.items() if not holds],
            "ok": all(held.values()),
        }

    def _attempts(self, field: str) -> dict[str, int]:
        """How many attempts ended with each value of a field of the jobs' histories."""
        lines = f"SELECT line->>'{field}' AS value FROM jobs, jsonb_array_elements(history) AS line"
        counted = f"SELECT value, count(*) FROM ({lines}) WHERE value IS NOT NULL GROUP BY value ORDER BY value"
        return {value: count for value, count in self.rows(counted)}

    def _each(self, statement: str, groups: int) -> bool:
        """Whether each of so many groups has one row."""
        return [count for (count,) in self.rows(statement)] == [1] * groups

    def _eventually(self, look: Callable[[], Any], expected: Any, limit: float = 10.0) -> bool:
        deadline = time.monotonic() + limit
        while look() != expected:
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK)
        return True


def name_of(number: int) -> str:
    return f"maker/m{number}"


def measure(folder: Path, plan: Plan) -> dict[str, Any]:
    hub = SpoiltHub(plan.seed)
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
        }
        processes.migrate(servers.database_url)
        # the delays of a supervisor that is used to workers which are killed
        supervisor = stack.enter_context(
            Supervisor(folder / "logs", environment, check=servers.ensure_running, longest_delay=2.0)
        )
        supervisor.start("api", processes.in_this_environment(processes.api("127.0.0.1", port)))
        supervisor.start("beat", processes.in_this_environment(processes.BEAT))
        for name in WORKERS:
            supervisor.start(name, processes.in_this_environment(processes.WORKER))
        run = Run(plan, servers, f"http://127.0.0.1:{port}")
        with run.submitting():
            run.until(run.done)
            run.until(lambda: all(run.found_by_the_api()))  # from here on the API follows the feed
            for done, kind in plan.faults():
                run.until(lambda done=done: run.done() >= done)
                run.fault(kind)
        run.until(lambda: run.count("state IN ('done', 'failed', 'cancelled')") == plan.jobs)
        run.happened.update({f"hub {kind}": count for kind, count in hub.spoilt.items()})
        found = run.verdict()
        run.database.close()
    return found


def publish(hub: ScriptedHub, folder: Path, jobs: int) -> None:
    for number in range(jobs):
        adapter = pico.make_adapter(folder / str(number), seed=number)
        hub.publishes(name_of(number), {file.name: file.read_bytes() for file in adapter.iterdir()})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--flushes", type=int, default=3, help="how often Valkey is emptied and crashed")
    parser.add_argument("--crashes", type=int, default=3, help="of Postgres")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="40 jobs and three faults")
    parser.add_argument("--folder", type=Path, help="keeps the logs there")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args()
    plan = Plan(options.jobs, options.kills, options.flushes, options.crashes, options.seed)
    if options.quick:
        plan = Plan(40, 1, 1, 1, options.seed)
    with tempfile.TemporaryDirectory(prefix="deltadex-") as name:
        found = measure(options.folder or Path(name), plan)
    print(json.dumps(found) if options.json else "\n".join(f"{name:16} {value}" for name, value in found.items()))
    if not found["ok"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
