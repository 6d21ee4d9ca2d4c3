"""What is made of whole spaces, each in a process of its own: this one encodes."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Sequence

INDEX, CLUSTERS, MAP = "index", "clusters", "map"
COMMAND = (sys.executable, "-m", "workers.maintenance")

log = logging.getLogger(__name__)


class Builder:
    """Runs `COMMAND NAME SPACE_ID`, one at a time. What is asked for meanwhile is asked for again by the next sweep."""

    def __init__(self, name: str, command: Sequence[str] = COMMAND) -> None:
        self._command = (*command, name)
        self._running: subprocess.Popen[bytes] | None = None

    @property
    def last(self) -> subprocess.Popen[bytes] | None:
        """The process that was started last, whether it has ended or not."""
        return self._running

    def start(self, space_id: int) -> bool:
        """False while another one runs."""
        if self._running is not None and self._running.poll() is None:
            return False
        if self._running is not None and self._running.returncode < 0:
            log.warning("the last %s was killed by signal %s", self._command[-1], -self._running.returncode)
        self._running = subprocess.Popen([*self._command, str(space_id)])
        return True

    def give_up(self) -> None:
        """Have it end. What is broken off leaves nothing behind that is shown or searched."""
        if self._running is not None and self._running.poll() is None:
            self._running.terminate()

    def stop(self) -> None:
        """As `give_up`, and wait until it has ended."""
        self.give_up()
        if self._running is not None:
            self._running.wait()
