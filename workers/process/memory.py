"""How much memory this process uses."""

from __future__ import annotations

import psutil
import torch


def memory_in_use(device: str) -> dict[str, int]:
    """Bytes: `resident` of the process in the machine's memory; `device` of a GPU's, where it has one."""
    used = {"resident": psutil.Process().memory_info().rss}
    if torch.device(device).type == "cuda":
        used["device"] = torch.cuda.memory_allocated(device)
    return used
