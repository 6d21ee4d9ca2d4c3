from __future__ import annotations

import pytest
import torch

from workers.process.memory import SAFE_SHARE, free_memory


def test_only_the_device_of_the_worker_is_asked_after_its_cache_is_emptied(monkeypatch: pytest.MonkeyPatch):
    """A stand-in for a GPU, which the machines that run the tests lack."""
    calls: list[str] = []

    def mem_get_info(device: str) -> tuple[int, int]:
        calls.append(f"asked {device}")
        return 1_000_000, 2_000_000

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("emptied"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", mem_get_info)
    assert free_memory("cuda:1") == int(SAFE_SHARE * 1_000_000)
    assert calls == ["emptied", "asked cuda:1"]


def test_on_the_cpu_no_gpu_is_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: pytest.fail("asked a GPU"))
    assert free_memory("cpu") > 0
