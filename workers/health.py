"""Does a worker of this machine beat? `python -m workers.health` exits with 0 if so: the worker image's HEALTHCHECK."""

from __future__ import annotations

import socket
import sys

from catalog.database import Database
from catalog.jobs.repository import workers
from catalog.settings import settings


def beats(database: Database, host: str, limit: float) -> bool:
    """Whether a worker on `host` gave a sign of life in the last `limit` seconds. Raises `DatabaseUnavailable`."""
    with database.transaction() as session:
        return any(worker.host == host for worker in workers.alive(session, limit))


def main() -> None:
    conf = settings()
    host = socket.gethostname()
    if not beats(Database(conf.require_database_url()), host, conf.heartbeat_limit):
        sys.exit(f"no heartbeat of a worker on {host} in the last {conf.heartbeat_limit} s")


if __name__ == "__main__":
    main()
