"""Identity of a process on this machine, so that a reused process id is not mistaken for a live worker."""

from __future__ import annotations

import os
from pathlib import Path

STATE, START_TIME = 0, 19  # fields of /proc/PID/stat after the process name: see proc_pid_stat(5)


def identity(pid: int | None = None) -> str | None:
    """A unique id `SCOPE/PID/START` of a running process, by default of this one. `SCOPE` is the boot id and the PID
    namespace, `START` the start time in clock ticks since boot. None if the process does not run, and on systems
    without `/proc`.
    """
    scope, pid = _scope(), os.getpid() if pid is None else pid
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if scope is None or fields[STATE] == "Z" else f"{scope}/{pid}/{fields[START_TIME]}"


def has_ended(process: str) -> bool:
    """Whether the process with this `identity` has ended. False for a process on another machine or container, whose
    state cannot be known here.
    """
    scope, pid, _ = process.rsplit("/", 2)
    return scope == _scope() and identity(int(pid)) != process


def _scope() -> str | None:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None
