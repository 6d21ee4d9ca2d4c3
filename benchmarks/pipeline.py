"""Measure the overhead of the pipeline over encoding alone, from claim to stored vector, with local files.

    python -m benchmarks.pipeline [--bases DIR] [--rounds N] [--batch K] [--json]

Each round submits the fifteen adapters of `examples/pool` to an empty catalog on a real Postgres and handles one
notification. `ratio` is the median over the rounds of (claim to stored) / (time inside the encoder), and `readers` that
of (time in which a thread waits for file readers) / (claim to stored); some of the threads wait at once.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import text

from app.deployment.embedded import EmbeddedServers
from app.deployment.processes import migrate
from catalog.database import Database
from catalog.jobs.repository import jobs, workers
from catalog.jobs.submissions import submit_folder
from catalog.settings import settings
from catalog.spaces.probes import load_probes
from catalog.tables import JobState
from workers.bases.residents import MeasurementSettings, Resident, ResidentBases
from workers.bases.resolver import BaseResolver, ResolvedBase
from workers.finetunes.reading import FineTune
from workers.hub.client import Hub
from workers.ingest.claimer import BatchPolicy
from workers.ingest.fetcher import Fetcher
from workers.ingest.pipeline import Pipeline
from workers.process.retries import RetryPolicy
from workers.readers.pool import ReaderPool

POOL = Path(__file__).parents[1] / "examples" / "pool"
NO_LIMIT = 2**40  # bytes


class TimedBases(ResidentBases):
    """Resident bases that measure the time inside their encoders."""

    encoding_seconds = 0.0

    def _load(self, base: ResolvedBase) -> Resident:
        resident = super()._load(base)
        encode = resident.encoder.encode

        def timed(finetunes: Sequence[FineTune]) -> list:
            start = time.perf_counter()
            results = encode(finetunes)
            self.encoding_seconds += time.perf_counter() - start
            return results

        resident.encoder.encode = timed  # type: ignore[method-assign]
        return resident


class TimedReaders(ReaderPool):
    """File readers that measure the time in which threads wait for them."""

    seconds = 0.0

    def run(self, *arguments: Any, **settings: Any) -> Any:
        start = time.perf_counter()
        try:
            return super().run(*arguments, **settings)
        finally:
            self.seconds += time.perf_counter() - start


def clear_catalog(database: Database) -> None:
    with database.transaction() as session:
        session.execute(text("TRUNCATE models, revisions, vectors, jobs CASCADE"))


def run(bases_dir: Path, rounds: int, batch: int) -> dict[str, object]:
    """Medians over the rounds, without the first round, which loads the base."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedServers(Path(folder) / "servers") as servers:
        os.environ.update(DATABASE_URL=servers.database_url, REDIS_URL=servers.redis_url)
        settings.cache_clear()  # they were read for the default of --bases
        migrate(servers.database_url)
        database = Database(servers.database_url)
        with database.transaction() as session:
            worker_id = workers.register(session, "benchmark", 0, "cpu")
        contract = MeasurementSettings(load_probes())
        readers = TimedReaders()
        hub = Hub("http://127.0.0.1:9", None, Path(folder), timeout=1, max_file_bytes=NO_LIMIT, max_repo_files=100)
        resolver = BaseResolver(hub, bases_dir, readers=readers)
        fetcher = Fetcher(database, hub, resolver, contract, max_file_bytes=NO_LIMIT, readers=readers)
        bases = TimedBases(database, contract, NO_LIMIT, readers)
        retries = RetryPolicy(max_attempts=1, base=1)
        pipeline = Pipeline(
            database, fetcher, bases, worker_id, runners={}, batching=BatchPolicy(size=batch), retries=retries
        )
        folders = sorted(folder for folder in POOL.iterdir() if folder.is_dir())
        measurements = []
        for _ in range(rounds + 1):
            clear_catalog(database)
            submitted = [submit_folder(database, folder) for folder in folders]
            bases.encoding_seconds, readers.seconds, start = 0.0, 0.0, time.perf_counter()
            pipeline.ingest(submitted[0].id)
            measurements.append((time.perf_counter() - start, bases.encoding_seconds, readers.seconds))
            with database.transaction() as session:
                assert jobs.count_by_state(session)[JobState.DONE] == len(folders)
        readers.stop()
        database.close()
    measurements = measurements[1:]
    return {
        "adapters": len(folders),
        "batch": batch,
        "rounds": rounds,
        "claim_to_stored_s": statistics.median(total for total, _, _ in measurements),
        "encoding_s": statistics.median(encoding for _, encoding, _ in measurements),
        "ratio": statistics.median(total / encoding for total, encoding, _ in measurements),
        "readers": statistics.median(reading / total for total, _, reading in measurements),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bases", type=Path, default=settings().bases_dir, help="folder of base models, OWNER/NAME")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    options = parser.parse_args()
    result = run(options.bases, options.rounds, options.batch)
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:18} {value:.3f}" if isinstance(value, float) else f"{name:18} {value}")


if __name__ == "__main__":
    main()
