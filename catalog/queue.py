"""The Celery app, the names of its tasks and queues, and the doorbell.

A message carries a job's id and nothing else. It rings after the commit; if it is lost, the sweeper rings again.
"""

from __future__ import annotations

import logging
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from sqlalchemy.orm import Session

from catalog.database import after_commit
from catalog.settings import settings

INGEST = "model.ingest"
SWEEP = "jobs.sweep"
INDEX_BUILD = "index.build"
CLUSTERS_FIT = "clusters.fit"
MAP_DRAW = "map.draw"
ENCODE_QUEUE = "encode"
UPKEEP_QUEUE = "upkeep"

log = logging.getLogger(__name__)


def _configuration() -> dict[str, Any]:
    conf = settings()
    return {
        "broker_url": conf.require_redis_url(),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            "visibility_timeout": conf.visibility_timeout,
            # a request does not wait for a broker that is down, or that hangs
            "socket_connect_timeout": 2,  # seconds
            "socket_timeout": 3,  # seconds; above the one second that a worker's read waits for a message
            "max_retries": 0,
            "interval_start": 0,
            "interval_max": 0.1,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
        "beat_schedule_filename": str(conf.data_dir / "celerybeat-schedule"),
        "beat_schedule": {
            SWEEP: {
                "task": SWEEP,
                "schedule": conf.sweep_interval,
                "options": {"queue": UPKEEP_QUEUE, "expires": max(conf.sweep_interval, 1.0)},
            }
        },
        "task_default_queue": ENCODE_QUEUE,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_ignore_result": True,
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_hijack_root_logger": False,
    }


celery = Celery("deltadex")
celery.add_defaults(_configuration)


def ring(job_id: int) -> None:
    """Tell a worker that there is a job. A broker that is down is no error: the sweeper rings later."""
    try:
        celery.send_task(INGEST, args=[job_id], queue=ENCODE_QUEUE, ignore_result=True, retry=False)
    except (OperationalError, RedisError, OSError) as error:
        log.warning("job %s could not be rung, the sweeper will: %s", job_id, error)


def ring_after_commit(session: Session, job_id: int) -> None:
    after_commit(session, lambda: ring(job_id))


def ring_build(space_id: int) -> None:
    """Ask for a space's index to be built. What no worker takes until the next sweep is forgotten: that rings again."""
    conf = settings()
    try:
        celery.send_task(
            INDEX_BUILD, args=[space_id], queue=UPKEEP_QUEUE, expires=max(conf.sweep_interval, 1.0), retry=False
        )
    except (OperationalError, RedisError, OSError) as error:
        log.warning("the index of space %s could not be rung for, the sweeper will: %s", space_id, error)


def ring_fit(task: str, space_id: int) -> None:
    """Ask for something to be made of a whole space; forgotten like `ring_build`."""
    expires = max(settings().sweep_interval, 1.0)
    try:
        celery.send_task(task, args=[space_id], queue=UPKEEP_QUEUE, expires=expires, retry=False)
    except (OperationalError, RedisError, OSError) as error:
        log.warning("%s of space %s could not be rung for, the sweeper will: %s", task, space_id, error)


def broker_answers() -> bool:
    """Whether Redis takes a connection now."""
    try:
        with celery.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=2)
    except (OperationalError, RedisError, OSError):
        return False
    return True
