"""Whether a crawl that is killed asks the Hub for anything twice: a hub of many repos, real workers, kill -9.

    python -m benchmarks.crawl [--repos N] [--embed N] [--kills K] [--json]

A server on this machine speaks the Hub's list (pages of 100, `Link` headers), its repos and their files. A crawl of all
`--repos` is asked for, a worker walks through it, and is killed `--kills` times in the middle of a page. The first
`--embed` repos have an adapter to download and embed; the others fail for having none. Printed: what was asked for more
than once. `ok`: no more than was in flight, one page a kill, and the batches that the worker had claimed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from app.deployment.embedded import EmbeddedServers
from app.deployment.processes import WORKER, in_this_environment, migrate
from catalog.database import Database
from catalog.hub_sync import crawls as crawl_service
from catalog.hub_sync.crawls import Limits, Source
from catalog.hub_sync.repository import crawls
from catalog.jobs.repository import jobs
from catalog.models.repository import models
from catalog.tables import CrawlState, JobState, ModelState
from tests.support import pico
from tests.support.hub_lists import HubLists, repo

LIMIT = 3_600.0  # seconds until it is given up
LOOK = 0.05
BATCH = 8
FETCHED_AHEAD = 2  # batches that a worker has in flight at once


@dataclass
class Hub(HubLists):
    """Lists, repos, and the same adapter in each of the first `embedded`."""

    files: dict[str, bytes] = field(default_factory=dict)
    embedded: int = 0

    def answer(self, path: str) -> tuple[int, dict[str, str], Any]:
        place = urlsplit(path).path
        if "/resolve/" in place:
            _, _, _, sha, file = place.strip("/").split("/", 4)
            return 200, {"X-Repo-Commit": sha, "ETag": f'"{blob_id(self.files[file])}"'}, self.files[file]
        if "/revision/" in place:
            found = self.repos[place.removeprefix("/api/models/").split("/revision/")[0]]
            return 200, {}, {**found, "siblings": self._siblings(found)}
        return super().answer(path)

    def _siblings(self, found: dict[str, Any]) -> list[dict[str, Any]]:
        if int(found["_id"], 16) >= self.embedded:
            return [{"rfilename": "README.md", "size": 0}]
        return [
            {"rfilename": name, "size": len(content), "blobId": blob_id(content)}
            for name, content in self.files.items()
        ]


def blob_id(content: bytes) -> str:
    """Git's own hash of a file, which the Hub gives as its ETag."""
    return hashlib.sha1(b"blob %d\0%s" % (len(content), content)).hexdigest()


def asked(hub: Hub) -> dict[str, Counter[str]]:
    """How often each thing was asked for: pages, listings of repos, parts of files."""
    kinds: dict[str, Counter[str]] = {"pages": Counter(), "repos": Counter(), "files": Counter()}
    for path, count in dict(hub.requests).items():
        kind = "pages" if path.startswith("/api/models?") else "files" if "/resolve/" in path else "repos"
        kinds[kind][path] += count
    return kinds


@contextmanager
def worker(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as out:
        process = subprocess.Popen(in_this_environment(WORKER), stdout=out, stderr=out)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def measure(folder: Path, repos: int, embed: int, kills: int) -> dict[str, Any]:
    database, hub = Database(os.environ["DATABASE_URL"]), Hub(embedded=embed)
    os.environ["HF_ENDPOINT"] = hub.url
    pico.make_base(folder / "data" / "bases" / pico.BASE_ID)
    adapter = pico.make_adapter(folder / "adapter")
    hub.files = {file.name: file.read_bytes() for file in adapter.iterdir()}
    hub.add(*(repo(number) for number in range(repos)))
    crawl = crawl_service.start(database, Source(base=pico.BASE_ID, relations=("adapter",)), Limits())
    started, pages = time.monotonic(), -(-repos // crawl_service.PAGE)
    for kill in range(1, kills + 1):
        with worker(folder / "worker.log") as process:
            _until(lambda mark=kill: len(asked(hub)["pages"]) > mark * pages // (kills + 1), started)  # type: ignore[misc]
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    with worker(folder / "worker.log"):
        _until(lambda: _state(database, crawl.id) in (CrawlState.DONE, CrawlState.FAILED), started)
        crawled = time.monotonic() - started
        _until(lambda: not _left(database), started)
    counts = asked(hub)
    with database.transaction() as session:
        found, states = crawls.get(session, crawl.id), jobs.counts(session)
        indexed = models.counts(session)[ModelState.INDEXED]
    twice = {kind: sum(count - 1 for count in each.values()) for kind, each in counts.items()}
    in_flight = BATCH * FETCHED_AHEAD * kills
    return {
        "repos": repos,
        "kills": kills,
        "state": found.state,
        "listed": found.listed,
        "queued": found.queued,
        "pages": len(counts["pages"]),
        "pages_asked_twice": twice["pages"],
        "repos_asked_twice": twice["repos"],
        "files": len({path.split()[0] for path in counts["files"]}),
        "files_asked_twice": twice["files"],
        "jobs_done": states[JobState.DONE],
        "jobs_failed": states[JobState.FAILED],
        "models_indexed": indexed,
        "seconds_crawling": round(crawled, 1),
        "seconds": round(time.monotonic() - started, 1),
        # one page a kill; of repos and files what a worker had claimed
        "ok": found.state == CrawlState.DONE
        and found.listed == found.queued == repos
        and twice["pages"] <= kills
        and max(twice["repos"], twice["files"]) <= in_flight,
    }


def _state(database: Database, crawl_id: int) -> str:
    with database.transaction() as session:
        return crawls.get(session, crawl_id).state


def _left(database: Database) -> int:
    with database.transaction() as session:
        counts = jobs.counts(session)
    return sum(counts[state] for state in (JobState.QUEUED, JobState.FETCHING, JobState.ENCODING))


def _until(look: Any, started: float) -> None:
    while not look():
        if time.monotonic() - started > LIMIT:
            raise SystemExit("it took too long")
        time.sleep(LOOK)


def run(repos: int, embed: int, kills: int) -> dict[str, Any]:
    """With a Postgres and a Valkey of its own."""
    with tempfile.TemporaryDirectory(prefix="deltadex-") as name, EmbeddedServers(Path(name) / "servers") as servers:
        os.environ.update(
            DATABASE_URL=servers.database_url,
            REDIS_URL=servers.redis_url,
            DELTADEX_DATA_DIR=str(Path(name) / "data"),
            DELTADEX_CRAWL_QUEUE=str(10 * repos + 1_000),
            DELTADEX_HEARTBEAT_INTERVAL="0.5",
            DELTADEX_HEARTBEAT_LIMIT="3",
            DELTADEX_SWEEP_INTERVAL="1",
            DELTADEX_RING_AGAIN_AFTER="1",
            DELTADEX_BATCH=str(BATCH),
        )
        migrate(servers.database_url)
        beat = subprocess.Popen(
            [sys.executable, "-m", "celery", "--app", "catalog.queue", "beat", "--loglevel", "ERROR"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            return measure(Path(name), repos, embed, kills)
        finally:
            beat.terminate()
            beat.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repos", type=int, default=5_000)
    parser.add_argument("--embed", type=int, default=200, help="repos that have an adapter")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args()
    found = run(options.repos, options.embed, options.kills)
    print(json.dumps(found) if options.json else "\n".join(f"{name:20} {value}" for name, value in found.items()))
    if not found["ok"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
