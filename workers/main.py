"""The worker process: `celery --app workers.main worker --pool solo`.

The solo pool runs a task in the process itself: CUDA cannot be initialised again after a fork.
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
from catalog.queue import CLUSTERS_FIT, INDEX_BUILD, INGEST, MAP_DRAW, SWEEP, celery
from catalog.settings import settings
from catalog.vectors import refresh_policy
from workers.bootstrap import Runtime

app = celery  # the name that `celery --app` looks for
log = logging.getLogger(__name__)
_runtime: Runtime | None = None


@worker_ready.connect
def _start(**_: Any) -> None:
    global _runtime  # noqa: PLW0603
    try:
        _runtime = Runtime(settings())
    except CatalogError as error:
        raise SystemExit(f"{error.code}: {error}") from error  # a handler's other exceptions are only logged
    _runtime.start()


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
        raise RuntimeError("tasks run in a started worker only")
    return _runtime


@celery.task(name=INGEST)
def ingest(job_id: int) -> None:
    """Answer a doorbell."""
    runtime().pipeline.ingest(job_id)


@celery.task(name=SWEEP)
def run_sweep() -> None:
    """Take jobs back from dead workers and ring for those whose message was lost."""
    conf = settings()
    done = sweep(
        runtime().database,
        silence=conf.silence,
        ring_again_after=conf.ring_again_after,
        deadly=conf.deadly,
        events_kept=conf.events_kept,
        token_max_age=conf.token_max_age,
    )
    if done.released or done.rung:
        log.info("swept: %s released, %s rung", len(done.released), len(done.rung))
    if runtime().upkeep_is_paused():
        return
    index_schedule.ring_for_due(runtime().database, index_schedule.Policy(conf.index_exact_bytes), conf.index_dir)
    crawl_service.begin_anew(runtime().database)
    policy = refresh_policy.Policy(share=conf.refit_share, quiet=conf.refit_quiet)
    cluster_service.ring_for_due(runtime().database, policy)
    map_schedule.ring_for_due(runtime().database, policy)


@celery.task(name=INDEX_BUILD)
def build_index(space_id: int) -> None:
    """Have a space's main segment made; does not wait for it."""
    if not runtime().upkeep_is_paused():  # rung again by the sweeps after it is resumed
        runtime().indexes.start(space_id)


@celery.task(name=CLUSTERS_FIT)
def fit_clusters(space_id: int) -> None:
    """Have the run done that waits for a space; does not wait for it."""
    if not runtime().upkeep_is_paused():
        runtime().clusters.start(space_id)


@celery.task(name=MAP_DRAW)
def draw_map(space_id: int) -> None:
    """Have a space's map drawn; does not wait for it."""
    if not runtime().upkeep_is_paused():
        runtime().maps.start(space_id)
