"""Assembles the parts of a worker process."""

from __future__ import annotations

import json
import logging
from functools import partial
from pathlib import Path

from pydantic import SecretStr

from catalog.archives.limits import NO_LIMITS, ArchiveLimits
from catalog.auth.hub_tokens import TokenBox
from catalog.database import Database, Limits
from catalog.errors import InvalidInput
from catalog.jobs.recovery import recover
from catalog.jobs.repository import queues, recovery
from catalog.quarantine.service import check_base
from catalog.queue import MAINTENANCE_QUEUE
from catalog.settings import Settings
from catalog.spaces import repository as spaces
from catalog.spaces.probes import load_probes
from catalog.tables import Source
from workers.bases.memory_limit import MemoryLimit
from workers.bases.residents import MeasurementSettings, ResidentBases
from workers.bases.resolver import BaseResolver
from workers.hub.client import Hub
from workers.hub.listing import HubListing
from workers.hub.rate_limits import SharedLimits
from workers.hub.session import is_service_token_rejected
from workers.ingest.claimer import BatchPolicy
from workers.ingest.fetcher import Fetcher
from workers.ingest.job_runner import JobRunner
from workers.ingest.pipeline import Pipeline
from workers.maintenance.crawler import Crawler
from workers.maintenance.file_remover import FileRemover
from workers.maintenance.reindexer import Reindexer
from workers.maintenance.retention import RetentionSweeper
from workers.maintenance.subprocesses import CLUSTERS, INDEX, MAP, SubprocessRunner
from workers.merges.runner import MergeRunner
from workers.process import scratch
from workers.process.heartbeat import Heartbeat
from workers.process.memory import memory_in_use
from workers.process.orderly_stop import OrderlyStop, end_process
from workers.process.retries import RetryPolicy
from workers.process.stages import Deadlines, RunningStage, Stage, Stages
from workers.readers.pool import ReaderPool
from workers.selections.runner import SelectionRunner
from workers.tasks.runner import TaskRunner

log = logging.getLogger(__name__)


class Runtime:
    """The database, heartbeat, pipeline and background threads of one worker. The constructor opens no connections.

    Raises `UnknownFeature`, `InvalidProbeSet`, `InvalidInput` or `Misconfigured` if the settings are invalid.
    """

    def __init__(self, conf: Settings) -> None:
        self.settings = conf
        self._measurement = MeasurementSettings(
            load_probes(conf.probes), conf.features, conf.layer, dtype=conf.dtype, device=conf.device
        )
        measured_spaces = self._measurement.spaces()  # fails here for a misspelled feature, rather than in every job
        self._tokens = TokenBox(conf.token_key, conf.token_max_age)
        self._aliases = _read_aliases(conf.base_aliases)
        self.database = Database(conf.require_database_url())
        self._heartbeat_database = Database(conf.require_database_url(), Limits(connections=2))
        self.heartbeat = Heartbeat(
            self._heartbeat_database, conf.device, conf.heartbeat_interval, report=self._report, after=self._recover
        )
        self.indexes = SubprocessRunner(INDEX)
        self.clusters = SubprocessRunner(CLUSTERS)
        self.maps = SubprocessRunner(MAP)
        self._limits = SharedLimits(
            conf.require_redis_url(), conf.hf_endpoint, rate=conf.hub_rate, downloads=conf.hub_downloads_total
        )
        listing = HubListing(conf.hf_endpoint, _secret(conf.hf_token), timeout=conf.hub_timeout, limits=self._limits)
        self.crawler = Crawler(self.database, listing, max_queued=conf.crawl_queue)
        self.reindexer = Reindexer(
            self.database, measured_spaces, max_queued=conf.crawl_queue, exact_bytes=conf.index_exact_bytes
        )
        self.file_remover = FileRemover(self.database, conf.downloads_dir, conf.index_dir)
        self.readers = ReaderPool(conf.readers, conf.reader_seconds, conf.reader_memory)
        self.retention = RetentionSweeper(self.database, conf)
        self._pipeline: Pipeline | None = None
        self.orderly_stop = OrderlyStop(self._cancel_all, self.heartbeat.sign_off, self._activity)
        self._stages = Stages(_deadlines(conf), on_hang=self._end_hung)

    def start(self) -> None:
        self.orderly_stop.start()
        if deleted := scratch.delete_abandoned():
            log.info("deleted %s temporary folders of killed workers", deleted)
        self.readers.start()
        self.heartbeat.start()
        self._stages.start()
        self.crawler.start()
        self.reindexer.start()
        self.file_remover.start()
        self.retention.start()

    def stop(self) -> None:
        self.crawler.stop()
        self.reindexer.stop()
        self.file_remover.stop()
        self.retention.stop()
        for builder in (self.indexes, self.clusters, self.maps):
            builder.stop()
        self._stages.stop()
        self.readers.stop()
        self.heartbeat.stop()
        self.close()

    def close(self) -> None:
        """Close the connections to Postgres."""
        self._heartbeat_database.close()
        self.database.close()

    @property
    def pipeline(self) -> Pipeline:
        """Raises `DatabaseUnavailable` as long as this worker is not registered."""
        if self._pipeline is None:
            self._pipeline = self._assemble(self.heartbeat.worker_id())
        return self._pipeline

    def maintenance_is_paused(self) -> bool:
        with self.database.transaction() as session:
            return queues.is_paused(session, MAINTENANCE_QUEUE)

    def _cancel_all(self) -> None:
        """Ask everything that runs in this process to stop; does not wait."""
        if self._pipeline is not None:
            self._pipeline.stop()
        self.crawler.stop()
        self.reindexer.request_stop()
        self.file_remover.request_stop()
        self.retention.request_stop()
        for builder in (self.indexes, self.clusters, self.maps):
            builder.request_stop()

    def _end_hung(self, hung: RunningStage) -> None:
        """End a process in which a stage does not return: nothing else ends a call into native code."""
        log.error("ending this worker: the stage %s of the jobs %s hangs", hung.stage, sorted(hung.job_ids))
        end_process(partial(self._hand_back, hung), status=1)

    def _hand_back(self, hung: RunningStage) -> None:
        """Requeue all jobs of this worker. Only those of the hung stage count a worker death."""
        with self._heartbeat_database.transaction() as session:
            limit = self.settings.max_worker_deaths
            worker_ids, loading = [self.heartbeat.worker_id()], hung.stage is Stage.LOAD
            recovery.count_deaths(session, worker_ids, limit, hung.job_ids, blame_loading=loading)
        self.heartbeat.sign_off()

    def _activity(self) -> str:
        return self._pipeline.activity if self._pipeline else "waiting for its first job"

    def _report(self) -> dict[str, object]:
        resident = self._pipeline.resident if self._pipeline else []
        return {
            "activity": self._activity(),
            "bases": resident,
            "memory": memory_in_use(self.settings.device),
            "hub_token_invalid": is_service_token_rejected(),
        }

    def _pinned(self, base_repo: str) -> str | None:
        with self.database.transaction() as session:
            return spaces.pinned_commit(session, base_repo)

    def _base_with_weights(self, weights: str) -> str | None:
        with self.database.transaction() as session:
            return spaces.find_base_by_weights(session, weights)

    def _recover(self) -> None:
        recovered = recover(
            self._heartbeat_database,
            requeue_after=self.settings.requeue_after,
            max_worker_deaths=self.settings.max_worker_deaths,
        )
        if recovered.released or recovered.quarantined:
            log.warning("requeued jobs %s of dead workers, quarantined %s", recovered.released, recovered.quarantined)

    def _assemble(self, worker_id: int) -> Pipeline:
        conf = self.settings
        hub = Hub(
            conf.hf_endpoint,
            _secret(conf.hf_token),
            conf.downloads_dir,
            timeout=conf.hub_timeout,
            max_file_bytes=conf.max_file_bytes,
            max_repo_files=conf.max_repo_files,
            budget=conf.downloads_budget or None,
            downloads=conf.hub_downloads,
            limits=self._limits,
            read_object=self.readers.read_object,
            pickled_adapters=conf.pickled_adapters,
        )
        measurement = self._measurement
        memory_limit = MemoryLimit.of_worker(conf.base_memory, conf.dtype, conf.device)
        fetcher = Fetcher(
            self.database,
            hub,
            BaseResolver(
                hub,
                conf.bases_dir,
                self._aliases,
                self._pinned,
                self._base_with_weights,
                check=partial(check_base, self.database),
                memory_limit=memory_limit,
                readers=self.readers,
            ),
            measurement,
            max_file_bytes=conf.max_file_bytes,
            tokens=self._tokens,
            memory_limit=memory_limit,
            stages=self._stages,
            readers=self.readers,
            pickled_adapters=conf.pickled_adapters,
        )
        bases = ResidentBases(self.database, measurement, worker_id, memory_limit, self._stages, self.readers)
        archive_limits = ArchiveLimits(conf.archive_bytes_per_key, conf.archive_bytes)
        return Pipeline(
            self.database,
            fetcher,
            bases,
            worker_id,
            runners=job_runners(self.database, bases, fetcher, worker_id, archive_limits),
            batching=BatchPolicy(size=conf.batch, max_wait=conf.base_max_wait, max_silence=conf.requeue_after),
            retries=RetryPolicy(conf.max_attempts, conf.retry_base, conf.max_worker_deaths),
            stages=self._stages,
        )


def job_runners(
    database: Database,
    bases: ResidentBases,
    fetcher: Fetcher,
    worker_id: int,
    archive_limits: ArchiveLimits = NO_LIMITS,
) -> dict[Source, JobRunner]:
    """The runners of exclusive jobs, by the source of the job's model."""
    return {
        Source.EXAMPLES: TaskRunner(database, bases, fetcher, worker_id, archive_limits=archive_limits),
        Source.SELECTION: SelectionRunner(database, bases, fetcher, worker_id),
        Source.MERGE: MergeRunner(database, bases, fetcher, worker_id, archive_limits=archive_limits),
    }


def _deadlines(conf: Settings) -> Deadlines:
    return Deadlines(**{stage.value: getattr(conf, f"{stage.value}_deadline") for stage in Stage})


def _secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value else None


def _read_aliases(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"DELTADEX_BASE_ALIASES: {path} cannot be read as JSON: {error}.") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content.values()):
        raise InvalidInput(
            f"DELTADEX_BASE_ALIASES: {path} must be a JSON object that maps repo ids of mirrors to those of originals."
        )
    return content
