"""Memory use of this process."""

from __future__ import annotations

import psutil
import torch


def memory_in_use(device: str) -> dict[str, int]:
    """Bytes in use: `resident` in main memory, and `device` in GPU memory if the device is a GPU."""
    used = {"resident": psutil.Process().memory_info().rss}
    if torch.device(device).type == "cuda":
        used["device"] = torch.cuda.memory_allocated(device)
    return used
