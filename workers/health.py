"""Health check of the worker image: `python -m workers.health` exits with 0 if a worker of this host is alive."""

from __future__ import annotations

import socket
import sys

from catalog.database import Database
from catalog.jobs.repository import workers
from catalog.settings import settings


def is_alive(database: Database, host: str, timeout: float) -> bool:
    """Whether a worker on `host` sent a heartbeat in the last `timeout` seconds. Raises `DatabaseUnavailable`."""
    with database.transaction() as session:
        return any(worker.host == host for worker in workers.list_alive(session, timeout))


def main() -> None:
    conf = settings()
    host = socket.gethostname()
    if not is_alive(Database(conf.require_database_url()), host, conf.heartbeat_timeout):
        sys.exit(f"No worker on {host} has sent a heartbeat in the last {conf.heartbeat_timeout} s")


if __name__ == "__main__":
    main()
