"""One command kept running."""

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

# Run by a fresh interpreter that then becomes the child: on Linux the kernel kills it when its parent is gone, even
# by SIGKILL. (subprocess's preexec_fn would run between fork and exec, where a threaded program must do nothing.)
DIE_WITH_PARENT = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent was gone before this started")
os.execvp(sys.argv[2], sys.argv[2:])
"""


class Child:
    """A command started again whenever it ends; each quick death doubles the wait before the next start.

    `first_delay` and `longest_delay` are seconds; who lived for `longest_delay` starts from `first_delay` again.
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
        self._deaths = 0
        self._started = self._due = 0.0  # monotonic seconds

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def look(self) -> None:
        """Note its death if it died, start it if it is due. Always from the same thread, or the kernel kills it:
        what it takes for the parent is the thread that started it.
        """
        if self.alive():
            return
        now = time.monotonic()
        if self._process is not None:
            self._note_death(now, self._process.returncode)
            self._process = None
        if now >= self._due:
            self._start(now)

    def send(self, number: signal.Signals) -> None:
        """To the child and whatever it started."""
        if self._process is not None and self.alive():
            os.killpg(self._process.pid, number)

    def _note_death(self, now: float, status: int) -> None:
        if now - self._started >= self._longest_delay:
            self._deaths = 0
        delay = min(self._first_delay * 2**self._deaths, self._longest_delay)
        self._deaths += 1
        self._due = now + delay
        log.warning("%s ended (status %s); again in %.1f s, see %s", self._argv[0], status, delay, self._log_file)

    def _start(self, now: float) -> None:
        command = [sys.executable, "-I", "-S", "-c", DIE_WITH_PARENT, str(os.getpid()), *self._argv]
        with self._log_file.open("ab") as output:
            # a session of its own: Ctrl-C in the terminal is the supervisor's to pass on
            self._process = subprocess.Popen(
                command, env=self._env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self._started = now
