"""The Celery app, the names of its tasks and queues, and the functions that enqueue messages.

The message for a job carries only the job's id. It is sent after the commit; if it is lost, the sweep sends it again.
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
MAP_BUILD = "map.build"
ENCODE_QUEUE = "encode"
MAINTENANCE_QUEUE = "maintenance"

# No more notifications than this wait in Redis, whose memory they would fill while no worker receives any. A worker
# that receives one goes on until no job is due, so a few are enough.
MAX_WAITING = 100

log = logging.getLogger(__name__)


def _configuration() -> dict[str, Any]:
    conf = settings()
    return {
        "broker_url": conf.require_redis_url(),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            "visibility_timeout": conf.visibility_timeout,
            # requests must not wait for a broker that is down or hangs
            "socket_connect_timeout": 2,  # seconds
            "socket_timeout": 3,  # seconds; more than the one second that a worker's blocking read takes
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
                "options": {"queue": MAINTENANCE_QUEUE, "expires": max(conf.sweep_interval, 1.0)},
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


def enqueue(job_id: int) -> None:
    """Notify a worker of a job, unless `MAX_WAITING` notifications wait already. A broker that is down is not an error:
    the sweep sends the message later.
    """
    try:
        with celery.producer_or_acquire() as producer:
            if producer.channel.client.llen(ENCODE_QUEUE) < MAX_WAITING:
                celery.send_task(
                    INGEST, args=[job_id], queue=ENCODE_QUEUE, ignore_result=True, retry=False, producer=producer
                )
    except (OperationalError, RedisError, OSError) as error:
        log.warning("job %s could not be enqueued; the next sweep will try again: %s", job_id, error)


def enqueue_after_commit(session: Session, job_id: int) -> None:
    after_commit(session, lambda: enqueue(job_id))


def enqueue_build(space_id: int) -> None:
    """Enqueue a build of a space's index. The message expires at the next sweep, which enqueues it again if due."""
    conf = settings()
    try:
        celery.send_task(
            INDEX_BUILD, args=[space_id], queue=MAINTENANCE_QUEUE, expires=max(conf.sweep_interval, 1.0), retry=False
        )
    except (OperationalError, RedisError, OSError) as error:
        log.warning(
            "the index build of space %s could not be enqueued; the next sweep will try again: %s", space_id, error
        )


def enqueue_fit(task: str, space_id: int) -> None:
    """Enqueue a task that computes something for a whole space. The message expires as in `enqueue_build`."""
    expires = max(settings().sweep_interval, 1.0)
    try:
        celery.send_task(task, args=[space_id], queue=MAINTENANCE_QUEUE, expires=expires, retry=False)
    except (OperationalError, RedisError, OSError) as error:
        log.warning("%s of space %s could not be enqueued; the next sweep will try again: %s", task, space_id, error)


def broker_answers() -> bool:
    """Whether Redis accepts a connection."""
    try:
        with celery.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=2)
    except (OperationalError, RedisError, OSError):
        return False
    return True
