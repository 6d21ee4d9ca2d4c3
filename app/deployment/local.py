"""A whole Deltadex on this machine: the servers, the tables, the API, one worker and beat."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from cryptography.fernet import Fernet

from app.client import Client
from app.deployment import processes
from app.deployment.embedded import EmbeddedServers
from app.deployment.signals import one_interrupt
from app.deployment.supervisor import Supervisor
from catalog.database import Database
from catalog.errors import AlreadyRunning, CatalogError, NotRunning
from catalog.jobs.repository import workers
from catalog.settings import Settings

START_LIMIT = 60  # seconds until the API is ready


class Deployment:
    """Runs while its block runs; `url` is the API's address. Leaving the block takes ten seconds at most, and standard
    error says what is waited for; a second Ctrl-C or SIGTERM changes nothing about that.

    Raises `AlreadyRunning` when the port or the data directory is in use, and what the servers raise.
    """

    def __init__(self, conf: Settings) -> None:
        self._conf = conf
        self._stack = ExitStack()
        self.url = f"http://{conf.host}:{conf.port}"

    def __enter__(self) -> Self:
        conf = self._conf
        _check_free(conf.host, conf.port)
        with ExitStack() as stack:
            stack.enter_context(one_interrupt())
            servers = EmbeddedServers(conf.data_dir, conf.database_url, conf.redis_url)
            self.servers = stack.enter_context(servers)
            processes.migrate(servers.database_url)
            env = {
                **os.environ,
                "DATABASE_URL": servers.database_url,
                "REDIS_URL": servers.redis_url,
                "DELTADEX_DATA_DIR": str(conf.data_dir.resolve()),
                "DELTADEX_TOKEN_KEY": _token_key(conf),
            }
            stack.callback(conf.run_file.unlink, missing_ok=True)
            addresses = {"database_url": servers.database_url, "redis_url": servers.redis_url, "api_url": self.url}
            _write_private(conf.run_file, json.dumps({**addresses, "pid": os.getpid()}))
            supervisor = Supervisor(
                conf.data_dir / "logs", env, check=servers.ensure_running, waiting=self._say_waiting
            )
            self.supervisor = stack.enter_context(supervisor)
            self.supervisor.start("api", processes.in_this_environment(processes.api(conf.host, conf.port)))
            self.supervisor.start("worker", processes.in_this_environment(processes.WORKER))
            self.supervisor.start("beat", processes.in_this_environment(processes.BEAT))
            self._wait_until_ready()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_LIMIT
        with Client(self.url) as client:
            while True:
                try:
                    if client.readiness()["ready"]:
                        return
                except NotRunning:
                    pass  # not yet
                if time.monotonic() > deadline:
                    raise NotRunning(f"The API is not ready after {START_LIMIT} s; its log is in {self._log_dir}.")
                time.sleep(0.1)

    def _say_waiting(self, names: Sequence[str], left: float) -> None:
        """Of a worker, also what it does."""
        database = Database(self.servers.database_url)
        try:
            with database.transaction() as session:
                alive = workers.alive(session, self._conf.heartbeat_limit)
                activities = [worker.status.get("activity", "starting") for worker in alive]
        except CatalogError:
            activities = []
        finally:
            database.close()
        doing = f" (the worker: {'; '.join(activities)})" if "worker" in names and activities else ""
        print(f"Stopping: waiting for {', '.join(names)}{doing}, {left:.0f} s at most.", file=sys.stderr, flush=True)

    @property
    def _log_dir(self) -> str:
        return str(self._conf.data_dir / "logs")


def _check_free(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise AlreadyRunning(f"Port {port} on {host} is in use. Choose another with --port.") from error


def _token_key(conf: Settings) -> str:
    """The key that users' tokens are sealed with: the given one, or one of this data directory's own."""
    if conf.token_key is not None:
        return conf.token_key.get_secret_value()
    kept = conf.data_dir / "token.key"
    if not kept.exists():
        _write_private(kept, Fernet.generate_key().decode())
    return kept.read_text().strip()


def _write_private(path: os.PathLike[str], content: str) -> None:
    """Addresses may hold passwords: for this user's eyes alone."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(content)
