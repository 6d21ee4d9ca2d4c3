"""A worker's pipeline without a Hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from catalog.database import Database
from catalog.jobs.repository import workers
from catalog.spaces.probes import load_probes
from workers.bases.residents import Contract, ResidentBases
from workers.bases.resolver import BaseResolver
from workers.hub.client import Hub
from workers.ingest.fetcher import Fetcher
from workers.ingest.pipeline import Pace, Pipeline, RetryPolicy


def make_pipeline(
    database: Database,
    bases_dir: Path,
    tmp_path: Path,
    *,
    budget: int = 10**9,
    pace: Pace | None = None,
    features: Sequence[str] = ("delta_activations",),
) -> Pipeline:
    with database.transaction() as session:
        worker_id = workers.register(session, "here", 1, "cpu")
    hub = Hub("http://127.0.0.1:9", None, tmp_path / "downloads", timeout=30, max_file_bytes=10**9, max_repo_files=100)
    contract = Contract(load_probes(), features)
    fetcher = Fetcher(database, hub, BaseResolver(hub, bases_dir), contract, max_file_bytes=10**9)
    bases = ResidentBases(database, contract, budget)
    return Pipeline(database, fetcher, bases, worker_id, pace=pace or Pace(batch=4), retries=RetryPolicy(3, 100))
