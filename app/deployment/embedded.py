"""A real Postgres and a real Valkey under the data directory, for installations without external servers.

Both servers survive a crash of the process that started them. The next start finds them by their address and reuses
them, so no process ids are stored on disk.
"""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from app.deployment.postgres import Postgres
from app.deployment.servers import Server
from app.deployment.valkey import Valkey
from catalog.errors import AlreadyRunning, ServerFailed
from catalog.settings import with_driver


class EmbeddedServers:
    """The two servers; each one is started only if no address of an external server is given.

        with EmbeddedServers(data_dir) as servers:
            Database(servers.database_url)

    `postgres` and `valkey` are None if the server is external. Raises `AlreadyRunning` if another process uses the
    same data directory, `MissingExtra` if the packages are not installed, and `ServerFailed` with the end of the
    server's log if one does not start.
    """

    def __init__(self, data_dir: Path, database_url: str | None = None, redis_url: str | None = None) -> None:
        data_dir.mkdir(parents=True, exist_ok=True)
        self._lock_file = data_dir / "embedded.lock"
        self._lock: IO[str] | None = None
        self._servers_lock = threading.RLock()  # the supervisor's thread and callers of restart_* both start servers
        self.postgres: Server | None = None
        self.valkey: Server | None = None
        if not database_url:
            self.postgres = Postgres(data_dir / "postgres")
            database_url = self.postgres.url
        if not redis_url:
            self.valkey = Valkey(data_dir / "valkey")
            redis_url = self.valkey.url
        self.database_url = with_driver(database_url)
        self.redis_url = redis_url

    def start(self) -> None:
        self._lock_data_dir()
        try:
            self.ensure_running()
        except BaseException:
            self.stop()
            raise

    def ensure_running(self) -> None:
        """Restart servers that have stopped, at their previous addresses."""
        with self._servers_lock:
            for server in self._servers():
                server.start()

    def restart_postgres(self) -> None:
        """Kill the embedded Postgres and restart it at the same address."""
        with self._servers_lock:
            _kill_and_restart(self.postgres)

    def restart_valkey(self) -> None:
        """Kill the embedded Valkey, which loses all messages, and restart it at the same address."""
        with self._servers_lock:
            _kill_and_restart(self.valkey)

    def stop(self) -> None:
        with self._servers_lock:
            for server in self._servers():
                server.stop()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def _servers(self) -> list[Server]:
        return [server for server in (self.postgres, self.valkey) if server is not None]

    def _lock_data_dir(self) -> None:
        if not self._servers():
            return
        lock = self._lock_file.open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise AlreadyRunning(
                f"Another process already runs the servers in {self._lock_file.parent}. Stop it, or set "
                "DELTADEX_DATA_DIR."
            ) from error
        self._lock = lock  # the kernel releases it when this process ends, even after SIGKILL


def _kill_and_restart(server: Server | None) -> None:
    if server is None:
        raise ServerFailed("This server is external, so Deltadex cannot restart it.")
    server.kill()
    server.start()
