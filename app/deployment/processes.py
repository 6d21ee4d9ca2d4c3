"""The commands of the parts, in one place: `deltadex up` runs them, and docker-compose.yml spells out the same."""

from __future__ import annotations

import sys
from pathlib import Path

from alembic import command
from alembic.config import Config

import migrations
from catalog.queue import ENCODE_QUEUE, UPKEEP_QUEUE
from catalog.settings import with_driver

MIGRATE = ("alembic", "upgrade", "head")

# solo: CUDA cannot be initialised again after a fork; what gossip and mingle tell, Postgres knows already
WORKER = (
    *("celery", "--app", "workers.main", "worker", "--pool", "solo", "--queues", f"{ENCODE_QUEUE},{UPKEEP_QUEUE}"),
    *("--loglevel", "INFO", "--without-gossip", "--without-mingle"),
)

BEAT = ("celery", "--app", "catalog.queue", "beat", "--loglevel", "INFO")


def api(host: str, port: int) -> tuple[str, ...]:
    return ("uvicorn", "app.main:create_app", "--factory", "--host", host, "--port", str(port))


def in_this_environment(argv: tuple[str, ...]) -> list[str]:
    """The same command through the interpreter that runs now, whose folder of scripts need not be on the PATH."""
    return [sys.executable, "-m", *argv]


def migrate(database_url: str) -> None:
    """Bring the database's tables up to date: `MIGRATE`, wherever the packages are installed."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    config.attributes["database_url"] = with_driver(database_url)
    command.upgrade(config, "head")
