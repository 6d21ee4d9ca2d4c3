"""Keeps child processes running until the supervisor is stopped."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from app.deployment.child import Child

log = logging.getLogger(__name__)

POLL_INTERVAL = 0.1  # seconds between polls of the children
CHECK_INTERVAL = 2.0  # seconds between calls of `check`
STOP_LIMIT = 7.0  # seconds; long enough for a worker to release its jobs
REPORT_AFTER = 1.0  # seconds before processes that are still running are reported


class Supervisor:
    """Named child processes, the output of each appended to `log_dir/NAME.log`.

        with Supervisor(data_dir / "logs", check=servers.ensure_running) as supervisor:
            supervisor.start("api", argv)
            supervisor.wait()  # until SIGINT or SIGTERM

    Leaving the block stops the children with SIGTERM, and with SIGKILL after `stop_limit` seconds. `report_waiting` is
    called with the names of children that are still running and the seconds they have left. `check` is called every
    `CHECK_INTERVAL` seconds; its exceptions are logged. Signals are handled by the caller (`signals.one_interrupt`).
    All delays are in seconds.
    """

    def __init__(
        self,
        log_dir: Path,
        env: Mapping[str, str] | None = None,
        *,
        check: Callable[[], None] = lambda: None,
        first_delay: float = 0.5,
        longest_delay: float = 30.0,
        stop_limit: float = STOP_LIMIT,
        report_waiting: Callable[[Sequence[str], float], None] = lambda names, remaining: None,
    ) -> None:
        log_dir.mkdir(parents=True, exist_ok=True)
        self._log_dir = log_dir
        self._env = env
        self._check = check
        self._delays = {"first_delay": first_delay, "longest_delay": longest_delay}
        self._stop_limit = stop_limit
        self._report_waiting = report_waiting
        self._children: dict[str, Child] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep_running, name="supervisor", daemon=True)

    def start(self, name: str, argv: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
        """Start the command and keep it running; returns immediately. Only its environment has the `variables`."""
        env = {**os.environ, **(self._env or {}), **variables} if variables else self._env
        child = Child(argv, self._log_dir / f"{name}.log", env, **self._delays)
        # replaced, not changed: the other thread may be iterating over it
        self._children = {**self._children, name: child}

    def alive(self) -> dict[str, bool]:
        """Whether each child is running, by name."""
        return {name: child.alive() for name, child in self._children.items()}

    def wait(self) -> None:
        """Block until SIGINT or SIGTERM."""
        try:
            self._stopping.wait()
        except KeyboardInterrupt:
            return

    def stop(self) -> None:
        """Stop every child; returns when all have ended."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def _keep_running(self) -> None:
        next_check = time.monotonic() + CHECK_INTERVAL
        while not self._stopping.wait(POLL_INTERVAL):
            for child in self._children.values():
                self._guarded(child.poll)
            if time.monotonic() >= next_check:
                self._guarded(self._check)
                next_check = time.monotonic() + CHECK_INTERVAL
        self._stop_children()

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:  # if this thread ended, the kernel would kill the children
            log.exception("Unexpected error in the supervisor; continuing")

    def _stop_children(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for child in self._children.values():
                child.send(number)
            self._wait_for_exit()

    def _wait_for_exit(self) -> None:
        started, reported = time.monotonic(), False
        while (elapsed := time.monotonic() - started) < self._stop_limit:
            running = [name for name, alive in self.alive().items() if alive]
            if not running:
                return
            if elapsed > REPORT_AFTER and not reported:
                reported = True
                self._guarded(partial(self._report_waiting, running, self._stop_limit - elapsed))
            time.sleep(0.02)
