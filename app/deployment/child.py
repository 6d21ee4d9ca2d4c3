"""A child process that is restarted whenever it ends."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

log = logging.getLogger(__name__)

# A fresh interpreter runs this and then execs the command. On Linux the kernel kills the child when its parent ends,
# even by SIGKILL. (subprocess's preexec_fn is unsafe in a threaded program: it runs between fork and exec.)
DIE_WITH_PARENT = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent process ended before this one started")
os.execvp(sys.argv[2], sys.argv[2:])
"""


class Child:
    """Runs a command and restarts it whenever it ends, with exponential backoff.

    `first_delay` and `longest_delay` are in seconds. The delay is reset once the command has run for `longest_delay`.
    """

    def __init__(
        self,
        argv: Sequence[str],
        log_file: Path,
        env: Mapping[str, str] | None = None,
        *,
        first_delay: float,
        longest_delay: float,
    ) -> None:
        self._argv = argv
        self._log_file = log_file
        self._env = env
        self._first_delay, self._longest_delay = first_delay, longest_delay
        self._process: subprocess.Popen[bytes] | None = None
        self._quick_exits = 0
        self._started = self._next_start = 0.0  # monotonic seconds

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def poll(self) -> None:
        """Record an exit and start the command when its delay has passed.

        Call this from one thread only: the kernel treats the thread that started the child as its parent, and kills the
        child when that thread ends.
        """
        if self.alive():
            return
        now = time.monotonic()
        if self._process is not None:
            self._record_exit(now, self._process.returncode)
            self._process = None
        if now >= self._next_start:
            self._start(now)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the child and to every process that it started."""
        if self._process is not None and self.alive():
            os.killpg(self._process.pid, number)

    def _record_exit(self, now: float, status: int) -> None:
        if now - self._started >= self._longest_delay:
            self._quick_exits = 0
        delay = min(self._first_delay * 2**self._quick_exits, self._longest_delay)
        self._quick_exits += 1
        self._next_start = now + delay
        log.warning(
            "%s exited with status %s; restarting in %.1f s (log: %s)", self._argv[0], status, delay, self._log_file
        )

    def _start(self, now: float) -> None:
        command = [sys.executable, "-I", "-S", "-c", DIE_WITH_PARENT, str(os.getpid()), *self._argv]
        with self._log_file.open("ab") as output:
            # in its own session, so that Ctrl-C in the terminal reaches only the supervisor
            self._process = subprocess.Popen(
                command, env=self._env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self._started = now
