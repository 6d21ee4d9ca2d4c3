"""A filled catalog on a real Postgres. Indexes are built in subprocesses."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.deployment.embedded import EmbeddedServers
from app.deployment.processes import migrate
from benchmarks.filling import SPACE, fill
from benchmarks.index.data import Data
from catalog.database import Database
from catalog.index import repository as snapshots
from catalog.index.follower import IndexFollower
from catalog.settings import settings

SPACE_ID = 1


@dataclass(frozen=True)
class Catalog:
    """A catalog in which models 1 to n have the vectors of `data`. Its files are in `folder`."""

    data: Data
    database: Database
    servers: EmbeddedServers
    folder: Path

    @property
    def env(self) -> dict[str, str]:
        """The environment of processes that use this catalog."""
        urls = {"DATABASE_URL": self.servers.database_url, "REDIS_URL": self.servers.redis_url}
        return os.environ | urls | {"DELTADEX_DATA_DIR": str(self.folder)}

    @property
    def index_folder(self) -> Path:
        return self.folder / "index"

    def start_build(self) -> subprocess.Popen[bytes]:
        """Start the index builder as workers do. It builds if enough vectors have changed."""
        return subprocess.Popen([sys.executable, "-m", "workers.maintenance", "index", str(SPACE_ID)], env=self.env)

    def build(self) -> dict[str, Any]:
        """Build the first main segment and measure its cost. A small space has no main segment."""
        start = time.perf_counter()
        if self.start_build().wait():
            raise RuntimeError("the build failed")
        seconds = round(time.perf_counter() - start, 1)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # kB, of all children
        with self.database.transaction() as session:
            [segment] = snapshots.list_newest(session, [SPACE_ID]).get(SPACE_ID, [None])
        if segment is None:
            return {"kind": "exact, in memory"}
        files = {path.name: path.stat().st_size for path in (self.index_folder / segment.path).iterdir()}
        return {
            "kind": segment.kind,
            "build_seconds": seconds,
            "build_peak_mb": round(peak / 1024),
            "tuned_recall": segment.recall,
            "files": files,
            "share_of_float32_bytes": round(sum(files.values()) / (4 * self.data.n * self.data.d), 4),
        }

    def request_build(self) -> None:
        """Mark the newest segment as damaged, so that the next builder rebuilds it."""
        with self.database.transaction() as session:
            snapshots.postpone(session, SPACE_ID, 0)
            newest = snapshots.last_generation(session, SPACE_ID)
            snapshots.mark_broken(session, SPACE_ID, newest, "rebuild requested by the benchmark")

    @contextmanager
    def follower(self) -> Iterator[IndexFollower]:
        """Yield a loaded index, as an API process has it."""
        follower = IndexFollower(self.database, settings().feed_interval, self.index_folder)
        follower.start()
        while not follower.loaded:
            time.sleep(0.001)
        follower.index(SPACE_ID, self.data.d)
        try:
            yield follower
        finally:
            follower.stop()


@contextmanager
def open_catalog(data: Data) -> Iterator[Catalog]:
    with tempfile.TemporaryDirectory(prefix="deltadex-") as name:
        folder = Path(name)
        with EmbeddedServers(folder / "servers") as servers:
            migrate(servers.database_url)
            database = Database(servers.database_url)
            fill(database, data.n, data.d, data.blocks(), SPACE)
            with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("VACUUM ANALYZE")
                connection.exec_driver_sql("CHECKPOINT")
            try:
                yield Catalog(data, database, servers, folder)
            finally:
                database.close()
