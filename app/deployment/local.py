"""A complete Deltadex on this machine: servers, migrations, API, one worker and beat."""

from __future__ import annotations

import json
import os
import secrets
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
from catalog.jobs import service as job_service
from catalog.settings import Settings

START_LIMIT = 60  # seconds until the API is ready


class Deployment:
    """A context manager that runs Deltadex; `url` is the address of the API, and `admin_key` the key of an admin.

    Leaving the block takes at most ten seconds. Messages on standard error say which process is still stopping, and a
    second Ctrl-C or SIGTERM has no further effect.

    Raises `AlreadyRunning` if the port or the data directory is in use, and the errors of `EmbeddedServers`.
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
            self.admin_key = _admin_key(conf)
            env = {
                **os.environ,
                "DATABASE_URL": servers.database_url,
                "REDIS_URL": servers.redis_url,
                "DELTADEX_DATA_DIR": str(conf.data_dir.resolve()),
                "DELTADEX_TOKEN_KEY": _token_key(conf),
            }
            env.pop("ADMIN_API_KEY", None)  # for the API alone
            stack.callback(conf.run_file.unlink, missing_ok=True)
            addresses = {"database_url": servers.database_url, "redis_url": servers.redis_url, "api_url": self.url}
            _write_private(conf.run_file, json.dumps({**addresses, "pid": os.getpid()}))
            supervisor = Supervisor(
                conf.data_dir / "logs", env, check=servers.ensure_running, report_waiting=self._report_waiting
            )
            self.supervisor = stack.enter_context(supervisor)
            api = processes.in_this_environment(processes.api(conf.host, conf.port))
            self.supervisor.start("api", api, {"ADMIN_API_KEY": self.admin_key})
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
                    pass  # the API does not listen yet
                if time.monotonic() > deadline:
                    raise NotRunning(f"The API is not ready after {START_LIMIT} s. See its log in {self._log_dir}.")
                time.sleep(0.1)

    def _report_waiting(self, names: Sequence[str], remaining: float) -> None:
        """Print which processes are still stopping, and the activity of the worker if it is one of them."""
        database = Database(self.servers.database_url)
        try:
            alive, _ = job_service.list_workers(database, self._conf.heartbeat_timeout)
            activities = [worker.status.get("activity", "starting") for worker in alive]
        except CatalogError:
            activities = []
        finally:
            database.close()
        activity = f" (busy with {'; '.join(activities)})" if "worker" in names and activities else ""
        print(
            f"Stopping: waiting up to {remaining:.0f} s for {', '.join(names)}{activity}.", file=sys.stderr, flush=True
        )

    @property
    def _log_dir(self) -> str:
        return str(self._conf.data_dir / "logs")


def _check_free(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise AlreadyRunning(f"Port {port} on {host} is in use. Choose another one with --port.") from error


def _token_key(conf: Settings) -> str:
    """The key that encrypts users' Hub tokens: from the settings, or generated once for this data directory."""
    if conf.token_key is not None:
        return conf.token_key.get_secret_value()
    key_file = conf.data_dir / "token.key"
    if not key_file.exists():
        _write_private(key_file, Fernet.generate_key().decode())
    return key_file.read_text().strip()


def _admin_key(conf: Settings) -> str:
    """The key of the first admin: from the settings, or generated once for this data directory."""
    if conf.admin_api_key is not None:
        return conf.admin_api_key.get_secret_value()
    if not conf.admin_key_file.exists():
        _write_private(conf.admin_key_file, secrets.token_urlsafe(24))
    return conf.admin_key_file.read_text().strip()


def _write_private(path: os.PathLike[str], content: str) -> None:
    """Write a file that only this user can read: it holds keys, or addresses with passwords."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(content)
