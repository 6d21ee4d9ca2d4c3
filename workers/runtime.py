"""A worker process's parts, put together once."""

from __future__ import annotations

import json

from catalog.database import Database
from catalog.probes import load_probes
from catalog.settings import Settings
from workers.bases import Contract, ResidentBases
from workers.builders import Builders
from workers.fetching import Fetcher
from workers.heartbeat import Heartbeat
from workers.hub import Hub
from workers.pipeline import Pace, Pipeline, RetryPolicy
from workers.resolver import BaseResolver


class Runtime:
    """The database, the heartbeat and the pipeline of one worker. Making one contacts nobody."""

    def __init__(self, conf: Settings) -> None:
        self.settings = conf
        self.database = Database(conf.require_database_url())
        self.heartbeat = Heartbeat(self.database, conf.device, conf.heartbeat_interval)
        self.builders = Builders()
        self._pipeline: Pipeline | None = None

    def start(self) -> None:
        self.heartbeat.start()

    def stop(self) -> None:
        self.builders.stop()
        self.heartbeat.stop()
        self.database.close()

    @property
    def pipeline(self) -> Pipeline:
        """Raises `DatabaseUnavailable` while this worker could not register."""
        if self._pipeline is None:
            self._pipeline = self._assemble(self.heartbeat.worker_id())
        return self._pipeline

    def _assemble(self, worker_id: int) -> Pipeline:
        conf = self.settings
        hub = Hub(
            conf.hf_endpoint,
            conf.hf_token.get_secret_value() if conf.hf_token else None,
            conf.downloads_dir,
            timeout=conf.hub_timeout,
            max_file_bytes=conf.max_file_bytes,
            max_repo_files=conf.max_repo_files,
        )
        aliases = json.loads(conf.base_aliases.read_text()) if conf.base_aliases else None
        contract = Contract(load_probes(conf.probes), conf.features, dtype=conf.dtype, device=conf.device)
        fetcher = Fetcher(
            self.database,
            hub,
            BaseResolver(hub, conf.bases_dir, aliases),
            contract,
            max_file_bytes=conf.max_file_bytes,
        )
        bases = ResidentBases(self.database, contract, conf.base_memory)
        retries = RetryPolicy(conf.max_attempts, conf.retry_base)
        pace = Pace(batch=conf.batch, patience=conf.base_patience)
        return Pipeline(self.database, fetcher, bases, worker_id, pace=pace, retries=retries)
