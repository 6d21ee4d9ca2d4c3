"""Memory of this process."""

from __future__ import annotations

import gc
import traceback
from pathlib import Path

import psutil
import torch

SAFE_SHARE = 0.9  # of a GPU's free memory; the rest is for fragments and activations


def memory_in_use(device: str) -> dict[str, int]:
    """Bytes in use: `resident` in main memory, and `device` in GPU memory if the device is a GPU."""
    used = {"resident": psutil.Process().memory_info().rss}
    if torch.device(device).type == "cuda":
        used["device"] = torch.cuda.memory_allocated(device)
    return used


def total_memory(device: str) -> int:
    """Bytes that this process may use at most: those of the machine, of its control groups (containers), and of the
    device if it is a GPU, whichever is the least.
    """
    limits = [psutil.virtual_memory().total, *_control_group_limits()]
    if torch.device(device).type == "cuda":
        limits.append(torch.cuda.get_device_properties(device).total_memory)
    return min(limits)


def _control_group_limits(root: Path = Path("/sys/fs/cgroup"), groups: Path = Path("/proc/self/cgroup")) -> list[int]:
    """The memory limits of this process's control group and those around it (version 2, and version 1's `memory`)."""
    limits = []
    try:
        lines = groups.read_text().splitlines()
    except OSError:  # not Linux
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            top, name = (root, "memory.max") if not controllers else (root / "memory", "memory.limit_in_bytes")
            folder = top / path.lstrip("/")
            for group in (folder, *folder.parents):  # within a container, its own group is the root
                if group.is_relative_to(top):
                    limits += _read_limit(group / name)
    return limits


def _read_limit(file: Path) -> list[int]:
    try:
        return [int(file.read_text())]
    except (OSError, ValueError):  # no such group here, or "max"
        return []


def clear_frames(error: BaseException) -> None:
    """Drop the variables of the frames that an error and its causes came through, such as the activations of a forward
    pass that ran out of memory. Its traceback can still be logged.
    """
    cleared: set[int] = set()
    errors: list[BaseException | None] = [error]
    while errors:
        one = errors.pop()
        if one is not None and id(one) not in cleared:
            cleared.add(id(one))
            errors += [one.__cause__, one.__context__]
            traceback.clear_frames(one.__traceback__)


def release_unused() -> None:
    """Return the memory of objects in cycles, and torch's unused GPU memory. Within an `except` block, the error still
    holds its frames.
    """
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def free_memory(device: str) -> int:
    """Bytes that a model may take on a device: those that are free, and on a GPU those that torch only keeps for later.
    No other GPU is asked, which would open a context on it.
    """
    if torch.device(device).type == "cpu":
        return psutil.virtual_memory().available
    release_unused()
    return int(SAFE_SHARE * torch.cuda.mem_get_info(device)[0])
