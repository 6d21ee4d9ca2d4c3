"""Measure what a crawl requests from the Hub a second time after its worker was killed (SIGKILL).

    python -m benchmarks.crawl [--repos N] [--embed N] [--kills K] [--json]

A local server implements the Hub's listing (pages of 100, `Link` headers), repos and files. A worker crawls `--repos`
repos, and is killed `--kills` times in the middle of a page. The first `--embed` repos contain an adapter, which is
downloaded and embedded; the jobs of the others fail. Reported: what was requested more than once. `ok` means that this
was at most what was in flight: one page per kill, and the batches that the worker had claimed.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from app.deployment.embedded import EmbeddedServers
from app.deployment.processes import WORKER, in_this_environment, migrate
from catalog.database import Database
from catalog.hub_sync import crawls as crawl_service
from catalog.hub_sync.crawls import CrawlLimits, CrawlSource
from catalog.hub_sync.repository import crawls
from catalog.jobs.repository import jobs
from catalog.models.repository import models
from catalog.tables import CrawlState, JobState, ModelState
from tests.support import pico
from tests.support.hub_lists import HubLists, repo_entry

TIMEOUT = 3_600.0  # seconds
POLL_INTERVAL = 0.05  # seconds
BATCH = 8
BATCHES_IN_FLIGHT = 2  # of one worker


@dataclass
class Hub(HubLists):
    """Lists and repos; each of the first `embedded` repos contains the same adapter."""

    files: dict[str, bytes] = field(default_factory=dict)
    embedded: int = 0

    def answer(self, path: str, token: str = "") -> tuple[int, dict[str, str], Any]:
        url_path = urlsplit(path).path
        if "/resolve/" in url_path:
            _, _, _, sha, file = url_path.strip("/").split("/", 4)
            return 200, {"X-Repo-Commit": sha, "ETag": f'"{blob_id(self.files[file])}"'}, self.files[file]
        if "/revision/" in url_path:
            repo = self.repos[url_path.removeprefix("/api/models/").split("/revision/")[0]]
            return 200, {}, {**repo, "siblings": self._siblings(repo)}
        return super().answer(path, token)

    def _siblings(self, repo: dict[str, Any]) -> list[dict[str, Any]]:
        if int(repo["_id"], 16) >= self.embedded:
            return [{"rfilename": "README.md", "size": 0}]
        return [
            {"rfilename": name, "size": len(content), "blobId": blob_id(content)}
            for name, content in self.files.items()
        ]


def blob_id(content: bytes) -> str:
    """The Git hash of a file, which the Hub sends as its ETag."""
    return hashlib.sha1(b"blob %d\0%s" % (len(content), content)).hexdigest()


def request_counts(hub: Hub) -> dict[str, Counter[str]]:
    """The number of requests for each page, each repo and each part of a file."""
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
    hub.add(*(repo_entry(number) for number in range(repos)))
    crawl = crawl_service.create(database, CrawlSource(base=pico.BASE_ID, relations=("adapter",)), CrawlLimits())
    started, pages = time.monotonic(), -(-repos // crawl_service.PAGE_SIZE)
    for kill in range(1, kills + 1):
        with worker(folder / "worker.log") as process:
            _wait_until(lambda mark=kill: len(request_counts(hub)["pages"]) > mark * pages // (kills + 1), started)  # type: ignore[misc]
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    with worker(folder / "worker.log"):
        _wait_until(lambda: _crawl_state(database, crawl.id) in (CrawlState.DONE, CrawlState.FAILED), started)
        crawled = time.monotonic() - started
        _wait_until(lambda: not _unfinished_jobs(database), started)
    counts = request_counts(hub)
    with database.transaction() as session:
        row, states = crawls.get(session, crawl.id), jobs.count_by_state(session)
        indexed = models.count_by_state(session)[ModelState.INDEXED]
    repeated = {kind: sum(count - 1 for count in requests.values()) for kind, requests in counts.items()}
    in_flight = BATCH * BATCHES_IN_FLIGHT * kills
    return {
        "repos": repos,
        "kills": kills,
        "state": row.state,
        "listed": row.listed,
        "queued": row.queued,
        "pages": len(counts["pages"]),
        "repeated_page_requests": repeated["pages"],
        "repeated_repo_requests": repeated["repos"],
        "files": len({path.split()[0] for path in counts["files"]}),
        "repeated_file_requests": repeated["files"],
        "jobs_done": states[JobState.DONE],
        "jobs_failed": states[JobState.FAILED],
        "models_indexed": indexed,
        "seconds_crawling": round(crawled, 1),
        "seconds": round(time.monotonic() - started, 1),
        "ok": row.state == CrawlState.DONE
        and row.listed == row.queued == repos
        and repeated["pages"] <= kills
        and max(repeated["repos"], repeated["files"]) <= in_flight,
    }


def _crawl_state(database: Database, crawl_id: int) -> str:
    with database.transaction() as session:
        return crawls.get(session, crawl_id).state


def _unfinished_jobs(database: Database) -> int:
    with database.transaction() as session:
        counts = jobs.count_by_state(session)
    return sum(counts[state] for state in (JobState.QUEUED, JobState.FETCHING, JobState.ENCODING))


def _wait_until(condition: Callable[[], bool], started: float) -> None:
    while not condition():
        if time.monotonic() - started > TIMEOUT:
            raise SystemExit(f"timed out after {TIMEOUT:.0f} s")
        time.sleep(POLL_INTERVAL)


def run(repos: int, embed: int, kills: int) -> dict[str, Any]:
    """Run the benchmark with its own Postgres and Valkey."""
    with tempfile.TemporaryDirectory(prefix="deltadex-") as name, EmbeddedServers(Path(name) / "servers") as servers:
        os.environ.update(
            DATABASE_URL=servers.database_url,
            REDIS_URL=servers.redis_url,
            DELTADEX_DATA_DIR=str(Path(name) / "data"),
            DELTADEX_CRAWL_QUEUE=str(10 * repos + 1_000),
            DELTADEX_HUB_RATE="0",  # of the local server
            DELTADEX_HEARTBEAT_INTERVAL="0.5",
            DELTADEX_HEARTBEAT_TIMEOUT="3",
            DELTADEX_SWEEP_INTERVAL="1",
            DELTADEX_REDELIVER_AFTER="1",
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
    parser.add_argument("--embed", type=int, default=200, help="number of repos with an adapter")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    options = parser.parse_args()
    report = run(options.repos, options.embed, options.kills)
    print(json.dumps(report) if options.json else "\n".join(f"{name:22} {value}" for name, value in report.items()))
    if not report["ok"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
