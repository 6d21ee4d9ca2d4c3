"""The commands of all processes. `deltadex up` runs them, and docker-compose.yml contains the same commands."""

from __future__ import annotations

import sys
from pathlib import Path

from alembic import command
from alembic.config import Config

import migrations
from catalog.queue import ENCODE_QUEUE, MAINTENANCE_QUEUE
from catalog.settings import with_driver

MIGRATE = ("alembic", "upgrade", "head")

# solo: CUDA cannot be initialized again after a fork; gossip and mingle share what Postgres stores anyway
WORKER = (
    *("celery", "--app", "workers.main", "worker", "--pool", "solo", "--queues", f"{ENCODE_QUEUE},{MAINTENANCE_QUEUE}"),
    *("--loglevel", "INFO", "--without-gossip", "--without-mingle"),
)

BEAT = ("celery", "--app", "catalog.queue", "beat", "--loglevel", "INFO")


def api(host: str, port: int) -> tuple[str, ...]:
    return ("uvicorn", "app.main:create_app", "--factory", "--host", host, "--port", str(port))


def in_this_environment(argv: tuple[str, ...]) -> list[str]:
    """The command run as a module of the current interpreter, whose scripts need not be on the PATH."""
    return [sys.executable, "-m", *argv]


def migrate(database_url: str) -> None:
    """Run all migrations, like `MIGRATE`, but from wherever the packages are installed."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    config.attributes["database_url"] = with_driver(database_url)
    command.upgrade(config, "head")
