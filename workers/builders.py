"""Builds of indexes, each in a process of its own: this one encodes."""

from __future__ import annotations

import logging
import subprocess
import sys

COMMAND = ("-m", "catalog.build_index")

log = logging.getLogger(__name__)


class Builders:
    """One build at a time: what is asked for meanwhile is asked for again by the next sweep."""

    def __init__(self) -> None:
        self._running: subprocess.Popen[bytes] | None = None

    def start(self, space_id: int) -> bool:
        """False while another build runs."""
        if self._running is not None and self._running.poll() is None:
            return False
        if self._running is not None and self._running.returncode < 0:
            log.warning("the last build of an index was killed by signal %s", -self._running.returncode)
        self._running = subprocess.Popen([sys.executable, *COMMAND, str(space_id)])
        return True

    def stop(self) -> None:
        """A build that is broken off leaves nothing behind that is searched."""
        if self._running is not None and self._running.poll() is None:
            self._running.terminate()
            self._running.wait()
