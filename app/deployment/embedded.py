"""A real Postgres and a real Valkey under the data directory, for whoever has none of their own.

Both outlive a crash of the process that started them: the next start finds them by their address and takes them over,
so nothing here depends on process ids on disk.
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
    """The two servers, each started only where no address of another is given.

        with EmbeddedServers(data_dir) as servers:
            Database(servers.database_url)

    `postgres` and `valkey` are None where the server is somebody else's. Raises `AlreadyRunning` when another process
    holds the same data directory, `MissingExtra` when the packages are not installed, `ServerFailed` with the end of
    the server's log when one does not start.
    """

    def __init__(self, data_dir: Path, database_url: str | None = None, redis_url: str | None = None) -> None:
        data_dir.mkdir(parents=True, exist_ok=True)
        self._lock_file = data_dir / "embedded.lock"
        self._lock: IO[str] | None = None
        self._turn = threading.RLock()  # the supervisor's thread looks after the servers while others restart them
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
        """Start again what has died, at the address it had."""
        with self._turn:
            for server in self._servers():
                server.start()

    def restart_postgres(self) -> None:
        """Crash our Postgres and start it again at the same address."""
        with self._turn:
            _crash(self.postgres)

    def restart_valkey(self) -> None:
        """Crash our Valkey, losing every message in it, and start it again at the same address."""
        with self._turn:
            _crash(self.valkey)

    def stop(self) -> None:
        with self._turn:
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
            raise AlreadyRunning(f"Another process runs the servers in {self._lock_file.parent}.") from error
        self._lock = lock  # the kernel lets go of it when this process ends, however it ends


def _crash(server: Server | None) -> None:
    if server is None:
        raise ServerFailed("That server is not ours to restart: its address was given.")
    server.kill()
    server.start()
