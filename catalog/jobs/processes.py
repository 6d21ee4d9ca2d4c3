"""Which process of this machine is which, so that a dead one is not taken for another that got its number."""

from __future__ import annotations

import os
from pathlib import Path

STATE, START_TIME = 0, 19  # fields of /proc/PID/stat behind the name, of which proc_pid_stat(5) is the source


def identity(pid: int | None = None) -> str | None:
    """`SCOPE/PID/START` of a running process (by default this one), which no other process ever has. `SCOPE` is the
    boot of the machine and the PID namespace, `START` counts clock ticks since that boot. None where the process does
    not run, and on systems without `/proc`.
    """
    scope, pid = _scope(), os.getpid() if pid is None else pid
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if scope is None or fields[STATE] == "Z" else f"{scope}/{pid}/{fields[START_TIME]}"


def has_ended(process: str) -> bool:
    """Whether the process of an `identity` is known to have ended: False for one of another machine or container."""
    scope, pid, _ = process.rsplit("/", 2)
    return scope == _scope() and identity(int(pid)) != process


def _scope() -> str | None:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None
