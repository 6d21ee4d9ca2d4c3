"""Measure the overhead of the pipeline over encoding alone, from claim to stored vector, with local files.

    python -m benchmarks.pipeline [--bases DIR] [--rounds N] [--batch K] [--json]

Each round submits the fifteen adapters of `examples/pool` to an empty catalog on a real Postgres and handles one
notification. `ratio` is the median over the rounds of (claim to stored) / (time inside the encoder). Each round is
repeated with files that are read in the worker itself instead of by file readers: `readers` is the median of the ratio
of the two times.
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
from workers.readers.in_process import IN_PROCESS
from workers.readers.interface import Readers
from workers.readers.pool import ReaderPool

FOLDERS = sorted(folder for folder in (Path(__file__).parents[1] / "examples" / "pool").iterdir() if folder.is_dir())
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


def clear_catalog(database: Database) -> None:
    with database.transaction() as session:
        session.execute(text("TRUNCATE models, revisions, vectors, jobs CASCADE"))


def assemble(
    database: Database, bases_dir: Path, folder: Path, batch: int, readers: Readers
) -> tuple[Pipeline, TimedBases]:
    with database.transaction() as session:
        worker_id = workers.register(session, "benchmark", 0, "cpu")
    contract = MeasurementSettings(load_probes())
    hub = Hub("http://127.0.0.1:9", None, folder, timeout=1, max_file_bytes=NO_LIMIT, max_repo_files=100)
    resolver = BaseResolver(hub, bases_dir, readers=readers)
    fetcher = Fetcher(database, hub, resolver, contract, max_file_bytes=NO_LIMIT, readers=readers)
    bases = TimedBases(database, contract, worker_id, readers=readers)
    retries, batching = RetryPolicy(max_attempts=1, base=1), BatchPolicy(size=batch)
    return Pipeline(database, fetcher, bases, worker_id, runners={}, batching=batching, retries=retries), bases


def measure(database: Database, pipeline: Pipeline, bases: TimedBases) -> tuple[float, float]:
    """Seconds of a round, from claim to stored vectors and within the encoder."""
    clear_catalog(database)
    submitted = [submit_folder(database, folder) for folder in FOLDERS]
    bases.encoding_seconds, start = 0.0, time.perf_counter()
    pipeline.ingest(submitted[0].id)
    seconds = time.perf_counter() - start
    with database.transaction() as session:
        assert jobs.count_by_state(session)[JobState.DONE] == len(FOLDERS)
    return seconds, bases.encoding_seconds


def run(bases_dir: Path, rounds: int, batch: int) -> dict[str, object]:
    """Medians over the rounds, without the first round, which loads the base."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedServers(Path(folder) / "servers") as servers:
        os.environ.update(DATABASE_URL=servers.database_url, REDIS_URL=servers.redis_url)
        settings.cache_clear()  # they were read for the default of --bases
        migrate(servers.database_url)
        database, readers = Database(servers.database_url), ReaderPool()
        with_readers = assemble(database, bases_dir, Path(folder), batch, readers)
        without = assemble(database, bases_dir, Path(folder), batch, IN_PROCESS)
        pairs = [(measure(database, *with_readers), measure(database, *without)) for _ in range(rounds + 1)][1:]
        readers.stop()
        database.close()
    return {
        "adapters": len(FOLDERS),
        "batch": batch,
        "rounds": rounds,
        "claim_to_stored_s": statistics.median(total for (total, _), _ in pairs),
        "encoding_s": statistics.median(encoding for (_, encoding), _ in pairs),
        "ratio": statistics.median(total / encoding for (total, encoding), _ in pairs),
        "without_readers_s": statistics.median(total for _, (total, _) in pairs),
        "readers": statistics.median(total / other for (total, _), (other, _) in pairs),
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
