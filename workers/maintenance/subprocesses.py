"""Builds of indexes, clusters and maps in subprocesses, while this process encodes."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Sequence

INDEX, CLUSTERS, MAP = "index", "clusters", "map"
COMMAND = (sys.executable, "-m", "workers.maintenance")

log = logging.getLogger(__name__)


class SubprocessRunner:
    """Runs `COMMAND NAME SPACE_ID`, one process at a time. The next sweep repeats requests that were refused."""

    def __init__(self, name: str, command: Sequence[str] = COMMAND) -> None:
        self._command = (*command, name)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def last_process(self) -> subprocess.Popen[bytes] | None:
        """The latest process, running or ended."""
        return self._process

    def start(self, space_id: int) -> bool:
        """Start a build. False if one is running already."""
        if self._process is not None and self._process.poll() is None:
            return False
        if self._process is not None and self._process.returncode < 0:
            log.warning("the last %s build was killed by signal %s", self._command[-1], -self._process.returncode)
        self._process = subprocess.Popen([*self._command, str(space_id)])
        return True

    def request_stop(self) -> None:
        """Terminate the process without waiting. An unfinished build leaves nothing that is shown or searched."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def stop(self) -> None:
        """Terminate the process, and wait until it has ended."""
        self.request_stop()
        if self._process is not None:
            self._process.wait()
