"""An adapter that disturbs its base."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.support import pico


def with_trained_norm(folder: Path) -> Path:
    """An adapter that cannot go through the hooks of plain LoRA."""
    weights = pico.make_adapter(folder) / "adapter_model.safetensors"
    norm = {"base_model.model.model.norm.weight": torch.linspace(0.5, 1.5, pico.HIDDEN)}
    save_file(load_file(weights) | norm, weights)
    return folder
