"""From claim to stored: how much the pipeline adds to the encoding itself when the files are local.

    python -m benchmarks.pipeline [--bases DIR] [--rounds N] [--batch K] [--json]

Each round submits the fifteen adapters of examples/pool to an empty catalog on a real Postgres and answers one bell.
`ratio` is the median over rounds of (claim to stored) / (time inside the encoder), both of the same round.
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
from workers.bases.residents import Contract, Resident, ResidentBases
from workers.bases.resolver import BaseResolver, ResolvedBase
from workers.finetunes.reading import FineTune
from workers.hub.client import Hub
from workers.ingest.claimer import Pace
from workers.ingest.fetcher import Fetcher
from workers.ingest.pipeline import Pipeline
from workers.process.retries import RetryPolicy

POOL = Path(__file__).parents[1] / "examples" / "pool"
NO_LIMIT = 2**40  # bytes


class TimedBases(ResidentBases):
    """Resident bases whose encoders are timed."""

    encoding = 0.0  # seconds inside `encode`

    def _load(self, base: ResolvedBase) -> Resident:
        resident = super()._load(base)
        encode = resident.encoder.encode

        def timed(finetunes: Sequence[FineTune]) -> list:
            start = time.perf_counter()
            results = encode(finetunes)
            self.encoding += time.perf_counter() - start
            return results

        resident.encoder.encode = timed  # type: ignore[method-assign]
        return resident


def empty(database: Database) -> None:
    with database.transaction() as session:
        session.execute(text("TRUNCATE models, revisions, vectors, jobs CASCADE"))


def run(bases_dir: Path, rounds: int, batch: int) -> dict[str, object]:
    """Medians over the rounds; the first one, which loads the base, does not count."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedServers(Path(folder) / "servers") as servers:
        os.environ.update(DATABASE_URL=servers.database_url, REDIS_URL=servers.redis_url)
        migrate(servers.database_url)
        database = Database(servers.database_url)
        with database.transaction() as session:
            worker_id = workers.register(session, "benchmark", 0, "cpu")
        contract = Contract(load_probes())
        hub = Hub("http://127.0.0.1:9", None, Path(folder), timeout=1, max_file_bytes=NO_LIMIT, max_repo_files=100)
        fetcher = Fetcher(database, hub, BaseResolver(hub, bases_dir), contract, max_file_bytes=NO_LIMIT)
        bases = TimedBases(database, contract, NO_LIMIT)
        retries = RetryPolicy(max_attempts=1, base=1)
        pipeline = Pipeline(database, fetcher, bases, worker_id, runners={}, pace=Pace(batch=batch), retries=retries)
        folders = sorted(each for each in POOL.iterdir() if each.is_dir())
        measured = []
        for _ in range(rounds + 1):
            empty(database)
            submitted = [submit_folder(database, each) for each in folders]
            bases.encoding, start = 0.0, time.perf_counter()
            pipeline.ingest(submitted[0].id)
            measured.append((time.perf_counter() - start, bases.encoding))
            with database.transaction() as session:
                assert jobs.counts(session)[JobState.DONE] == len(folders)
        database.close()
    counted = measured[1:]
    return {
        "adapters": len(folders),
        "batch": batch,
        "rounds": rounds,
        "claim_to_stored_s": statistics.median(total for total, _ in counted),
        "encoding_s": statistics.median(encoding for _, encoding in counted),
        "ratio": statistics.median(total / encoding for total, encoding in counted),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bases", type=Path, default=settings().bases_dir, help="base models, OWNER/NAME")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args()
    result = run(options.bases, options.rounds, options.batch)
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:18} {value:.3f}" if isinstance(value, float) else f"{name:18} {value}")


if __name__ == "__main__":
    main()
