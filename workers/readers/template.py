"""The process that readers are forked from, as the worker sees it.

It imports the libraries once, which takes seconds, and reads nothing itself. A reader that was ended is so replaced in
milliseconds, and all of them share the memory of the libraries.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import workers
from workers.readers.messages import Disconnected, InvalidMessage, receive, send

START_SECONDS = 300.0  # until the libraries are imported, on a busy machine
END_SECONDS = 30.0  # until a killed reader has ended
COMMAND = (sys.executable, "-m", "workers.readers")


class NotStarted(Exception):
    """There is no process to fork from, which is no repo's fault."""


class ReaderTemplate:
    """Forks readers. The constructor starts the process and does not wait until it is ready. Thread-safe."""

    def __init__(self, command: tuple[str, ...] = COMMAND) -> None:
        self._lock = threading.Lock()
        self._ready = False
        self.scratch = Path(tempfile.mkdtemp(prefix="deltadex-readers-"))
        self._connection, theirs = socket.socketpair()
        self._connection.settimeout(1)  # after which deadlines are looked at
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                env=environment(self.scratch),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def fork(self, scratch: Path, seconds: float, memory: int) -> tuple[int, socket.socket]:
        """Start a reader. Returns its process id and the connection to it. Raises `NotStarted`."""
        ours, theirs = socket.socketpair()
        try:
            with self._lock, theirs:
                answers_in_time = _deadline(START_SECONDS)
                if not self._ready:
                    receive(self._connection, answers_in_time)
                    self._ready = True
                send(self._connection, {"scratch": str(scratch), "seconds": seconds, "memory": memory})
                socket.send_fds(self._connection, [b"!"], [theirs.fileno()])
                return int(receive(self._connection, answers_in_time)["pid"]), ours
        except (Disconnected, InvalidMessage, KeyError, OSError) as error:
            ours.close()
            self.kill()
            raise NotStarted(f"No reader can be started (exit status {self._process.returncode}).") from error

    def end(self, pid: int) -> int | None:
        """Kill a reader, and wait until it has ended. Returns its exit status, negative for a signal; None if the
        template has ended as well.
        """
        # it is a zombie until the template has waited for it, so the process id is still its own
        with self._lock:
            if self.has_ended:
                return None
            try:
                os.kill(pid, signal.SIGKILL)
                send(self._connection, {"reap": pid})
                status = receive(self._connection, _deadline(END_SECONDS))["status"]
            except (Disconnected, InvalidMessage, KeyError, OSError):
                return None
        return status if isinstance(status, int) else None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._connection.close()
        shutil.rmtree(self.scratch, ignore_errors=True)


def _deadline(seconds: float) -> Callable[[], None]:
    """Raises `Disconnected` when it is called after `seconds`."""
    deadline = time.monotonic() + seconds

    def check() -> None:
        if time.monotonic() > deadline:
            raise Disconnected

    return check


def environment(scratch: Path) -> Mapping[str, Any]:
    """The whole environment of readers: nothing of the worker's own, which holds its secrets."""
    return {
        "PATH": os.defpath,
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(Path(workers.__file__).parents[1]),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "MALLOC_ARENA_MAX": "2",
    }
