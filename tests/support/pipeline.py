"""A worker's pipeline with its parts, built over a folder of bases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from catalog.auth.hub_tokens import TokenBox
from catalog.database import Database
from catalog.jobs.repository import workers
from catalog.quarantine.service import check_base
from catalog.spaces.probes import load_probes
from catalog.tables import Source
from workers.bases.memory_limit import MemoryLimit
from workers.bases.residents import MeasurementSettings, ResidentBases
from workers.bases.resolver import BaseResolver
from workers.bootstrap import job_runners
from workers.hub.client import Hub
from workers.ingest.claimer import BatchPolicy
from workers.ingest.fetcher import Fetcher
from workers.ingest.job_runner import JobRunner
from workers.ingest.pipeline import Pipeline
from workers.process.retries import RetryPolicy
from workers.process.stages import Stages
from workers.readers.in_process import IN_PROCESS
from workers.readers.interface import Readers

UNREACHABLE = "http://127.0.0.1:9"  # no server listens on this port
NO_LIMIT = 10**9

Runners = Callable[[Database, ResidentBases, Fetcher, int], Mapping[Source, JobRunner]]


@dataclass(frozen=True)
class Parts:
    """A pipeline and the objects it consists of."""

    pipeline: Pipeline
    fetcher: Fetcher
    resolver: BaseResolver
    bases: ResidentBases
    measurement: MeasurementSettings
    worker_id: int


def assemble(
    database: Database,
    bases_dir: Path,
    tmp_path: Path,
    *,
    endpoint: str = UNREACHABLE,
    hub_token: str | None = None,
    timeout: float = 30,
    max_file_bytes: int = NO_LIMIT,
    max_repo_files: int = 100,
    measurement: MeasurementSettings | None = None,
    aliases: Mapping[str, str] | None = None,
    tokens: TokenBox | None = None,
    budget: int = NO_LIMIT,
    readers: Readers = IN_PROCESS,
    pickled_adapters: bool = False,
    fetcher_class: type[Fetcher] = Fetcher,
    runners: Runners = job_runners,
    batching: BatchPolicy | None = None,
    retries: RetryPolicy | None = None,
    stages: Stages | None = None,
) -> Parts:
    """Register a worker and build its pipeline, which downloads to `tmp_path / "downloads"`."""
    with database.transaction() as session:
        worker_id = workers.register(session, "here", 1, "cpu")
    downloads = tmp_path / "downloads"
    limits = {"max_file_bytes": max_file_bytes, "max_repo_files": max_repo_files}
    hub = Hub(
        endpoint,
        hub_token,
        downloads,
        timeout=timeout,
        read_object=readers.read_object,
        pickled_adapters=pickled_adapters,
        **limits,
    )
    measurement = measurement or MeasurementSettings(load_probes())
    memory_limit, stages = MemoryLimit(budget, measurement.dtype), stages or Stages()
    resolver = BaseResolver(
        hub, bases_dir, aliases, check=partial(check_base, database), memory_limit=memory_limit, readers=readers
    )
    fetcher = fetcher_class(
        database,
        hub,
        resolver,
        measurement,
        max_file_bytes=max_file_bytes,
        tokens=tokens,
        memory_limit=memory_limit,
        stages=stages,
        readers=readers,
        pickled_adapters=pickled_adapters,
    )
    bases = ResidentBases(database, measurement, worker_id, memory_limit, stages, readers)
    pipeline = Pipeline(
        database,
        fetcher,
        bases,
        worker_id,
        runners=runners(database, bases, fetcher, worker_id),
        batching=batching or BatchPolicy(size=4),
        retries=retries or RetryPolicy(3, base=100),
        stages=stages,
    )
    return Parts(pipeline, fetcher, resolver, bases, measurement, worker_id)


def make_pipeline(database: Database, bases_dir: Path, tmp_path: Path, **settings: Any) -> Pipeline:
    """Only the pipeline of `assemble`, which also takes the `settings`."""
    return assemble(database, bases_dir, tmp_path, **settings).pipeline
