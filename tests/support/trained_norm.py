"""An adapter with a trained norm."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.support import pico


def with_trained_norm(folder: Path) -> Path:
    """Write an adapter that also trains a norm, so that the hooks for plain LoRA cannot apply it."""
    weights = pico.make_adapter(folder) / "adapter_model.safetensors"
    norm = {"base_model.model.model.norm.weight": torch.linspace(0.5, 1.5, pico.HIDDEN)}
    save_file(load_file(weights) | norm, weights)
    return folder
