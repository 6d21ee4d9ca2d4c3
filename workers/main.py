"""The worker process: `celery --app workers.main worker --pool solo`.

The solo pool runs tasks in the worker process itself, because CUDA cannot be initialized again after a fork.
"""

from __future__ import annotations

import logging
from typing import Any

from celery.signals import worker_ready, worker_shutdown, worker_shutting_down

from catalog.clusters import service as cluster_service
from catalog.errors import CatalogError
from catalog.hub_sync import crawls as crawl_service
from catalog.index import schedule as index_schedule
from catalog.maintenance.sweep import sweep
from catalog.maps import schedule as map_schedule
from catalog.queue import CLUSTERS_FIT, INDEX_BUILD, INGEST, MAP_BUILD, SWEEP, celery
from catalog.settings import settings
from catalog.vectors import refresh_policy
from workers.bootstrap import Runtime

app = celery  # `celery --app` looks for this name
log = logging.getLogger(__name__)
_runtime: Runtime | None = None


@worker_ready.connect
def _start(**_: Any) -> None:
    global _runtime  # noqa: PLW0603
    # Celery only logs other exceptions of a signal handler, and would keep a worker running that cannot work
    try:
        _runtime = Runtime(settings())
        _runtime.start()
    except CatalogError as error:
        raise SystemExit(f"{error.code}: {error}") from error
    except Exception as error:
        log.exception("Unexpected error while starting the worker")
        raise SystemExit(f"The worker cannot start: {error!r}. Its log has the traceback.") from error


@worker_shutting_down.connect
def _request_stop(**_: Any) -> None:
    if _runtime is not None:
        _runtime.orderly_stop.request()


@worker_shutdown.connect
def _stop(**_: Any) -> None:
    if _runtime is not None:
        _runtime.stop()


def runtime() -> Runtime:
    if _runtime is None:
        raise RuntimeError("tasks can only run in a started worker")
    return _runtime


@celery.task(name=INGEST)
def ingest(job_id: int) -> None:
    """Process the job with this id, and any others that are queued for the same base."""
    runtime().pipeline.ingest(job_id)


@celery.task(name=SWEEP)
def run_sweep() -> None:
    """Requeue the jobs of dead workers, enqueue jobs whose message was lost, and request builds of indexes, clusters
    and maps.
    """
    conf = settings()
    result = sweep(
        runtime().database,
        requeue_after=conf.requeue_after,
        redeliver_after=conf.redeliver_after,
        max_worker_deaths=conf.max_worker_deaths,
        event_retention=conf.event_retention,
        audit_retention=conf.audit_retention,
        token_max_age=conf.token_max_age,
    )
    if result.released or result.enqueued:
        log.info("sweep: released %s jobs, enqueued %s", len(result.released), len(result.enqueued))
    if runtime().maintenance_is_paused():
        return
    index_schedule.enqueue_due(runtime().database, index_schedule.BuildPolicy(conf.index_exact_bytes), conf.index_dir)
    crawl_service.restart_due(runtime().database)
    policy = refresh_policy.RefreshPolicy(share=conf.refresh_share, debounce=conf.refresh_debounce)
    cluster_service.enqueue_due(runtime().database, policy)
    map_schedule.enqueue_due(runtime().database, policy)


@celery.task(name=INDEX_BUILD)
def build_index(space_id: int) -> None:
    """Start building the main segment of a space's index in a subprocess."""
    if not runtime().maintenance_is_paused():  # sweeps enqueue it again once the queue is resumed
        runtime().indexes.start(space_id)


@celery.task(name=CLUSTERS_FIT)
def fit_clusters(space_id: int) -> None:
    """Start the queued cluster run of a space in a subprocess."""
    if not runtime().maintenance_is_paused():
        runtime().clusters.start(space_id)


@celery.task(name=MAP_BUILD)
def build_map(space_id: int) -> None:
    """Start computing the map of a space in a subprocess."""
    if not runtime().maintenance_is_paused():
        runtime().maps.start(space_id)
