"""Keeps child processes running until told to stop."""

from __future__ import annotations

import logging
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

CHILD_INTERVAL = 0.1  # seconds between looks at the children
CHECK_INTERVAL = 2.0  # seconds between calls of `check`
STOP_LIMIT = 7.0  # seconds; a worker hands its jobs back within them
PATIENCE = 1.0  # seconds before those are named that have not ended


class Supervisor:
    """Named child processes, the output of each appended to `log_dir/NAME.log`.

        with Supervisor(data_dir / "logs", check=servers.ensure_running) as supervisor:
            supervisor.start("api", argv)
            supervisor.wait()  # until SIGINT or SIGTERM

    Leaving the block stops the children: SIGTERM, and SIGKILL after `stop_limit` seconds; `waiting` is called with the
    names of those that take their time and the seconds that they still have (signals are the caller's:
    `signals.one_interrupt`). `check` is called now and then; what it raises is logged, and it is called again. All
    delays are seconds.
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
        waiting: Callable[[Sequence[str], float], None] = lambda names, left: None,
    ) -> None:
        log_dir.mkdir(parents=True, exist_ok=True)
        self._log_dir = log_dir
        self._env = env
        self._check = check
        self._delays = {"first_delay": first_delay, "longest_delay": longest_delay}
        self._stop_limit = stop_limit
        self._waiting = waiting
        self._children: dict[str, Child] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep_running, name="supervisor", daemon=True)

    def start(self, name: str, argv: Sequence[str]) -> None:
        """Have the command run from now on; returns at once."""
        child = Child(argv, self._log_dir / f"{name}.log", self._env, **self._delays)
        self._children = {**self._children, name: child}  # replaced, as the other thread may be going through it

    def alive(self) -> dict[str, bool]:
        """Which children run now."""
        return {name: child.alive() for name, child in self._children.items()}

    def wait(self) -> None:
        """Block until SIGINT or SIGTERM."""
        try:
            self._stopping.wait()
        except KeyboardInterrupt:
            return

    def stop(self) -> None:
        """Stop every child and return when all are gone."""
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
        while not self._stopping.wait(CHILD_INTERVAL):
            for child in self._children.values():
                self._guarded(child.look)
            if time.monotonic() >= next_check:
                self._guarded(self._check)
                next_check = time.monotonic() + CHECK_INTERVAL
        self._end_children()

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:  # the thread must live: the children die with it
            log.exception("the supervisor goes on")

    def _end_children(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for child in self._children.values():
                child.send(number)
            self._await_end()

    def _await_end(self) -> None:
        begun, said = time.monotonic(), False
        while (passed := time.monotonic() - begun) < self._stop_limit:
            left = [name for name, alive in self.alive().items() if alive]
            if not left:
                return
            if passed > PATIENCE and not said:
                said = True
                self._guarded(partial(self._waiting, left, self._stop_limit - passed))
            time.sleep(0.02)
