"""LoRA adapters of MLX, converted to PEFT's format.

mlx-lm computes `y += scale * (x A) B` with A (in, r) and B (r, out), so both factors are PEFT's, transposed
(https://github.com/ml-explore/mlx-lm/blob/main/mlx_lm/tuner/lora.py). DoRA is the same as PEFT's, with the magnitudes
in `m`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch

from catalog.errors import InvalidAdapterConfig, UnsupportedAdapter
from workers.finetunes.lora_config import PEFT_PREFIX

MLX_NOTE = "The adapter was read from the format of MLX."
_KEY = re.compile(r"(?P<module>.+)\.(?P<leaf>lora_a|lora_b|m)")
_PEFT_LEAVES = {"lora_a": "lora_A.weight", "lora_b": "lora_B.weight", "m": "lora_magnitude_vector.weight"}
# MLX applies the LoRA of a tied embedding to the output head, too
_EMBEDDING = re.compile(r".*\b(embed_tokens|wte|wpe|embed_in|word_embeddings|tok_embeddings|embeddings?)")


def is_mlx(config: Mapping[str, Any]) -> bool:
    """Whether an `adapter_config.json` was written by MLX."""
    if config.get("peft_type") is not None:
        return False
    return "lora_parameters" in config or "fine_tune_type" in config or {"rank", "alpha"} <= config.keys()


def peft_config_of_mlx(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config for PEFT of an adapter of MLX.

    Raises `UnsupportedAdapter`, and `InvalidAdapterConfig` for scales that are missing or ambiguous.
    """
    kind = config.get("fine_tune_type") or "lora"
    if kind not in ("lora", "dora"):
        raise UnsupportedAdapter(
            f"The adapter of MLX has the fine_tune_type {str(kind)[:40]!r}; only lora and dora are read: fuse it "
            "(`mlx_lm.fuse`) and submit the full model."
        )
    parameters = config.get("lora_parameters")
    if not isinstance(parameters, dict):
        raise UnsupportedAdapter(
            "The adapter of MLX has no lora_parameters: it is of an old mlx-vlm, whose versions disagree on whether "
            "alpha is divided by the rank. Write lora_parameters with rank and scale into adapter_config.json."
        )
    rank, scale, alpha = parameters.get("rank"), parameters.get("scale"), parameters.get("alpha")
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isfinite(scale):
        raise InvalidAdapterConfig(
            f"The scale in lora_parameters of the adapter of MLX is {repr(scale)[:40]}: write the number by which "
            "(x A) B was multiplied in training."
        )
    if type(rank) is not int:
        raise InvalidAdapterConfig(
            f"The rank in lora_parameters of the adapter of MLX is {repr(rank)[:40]}: write the trained rank."
        )
    # until June 2024 the scale was multiplied by alpha / rank; num_layers replaced lora_layers later that year
    if alpha not in (None, rank) and "num_layers" not in config:
        raise UnsupportedAdapter(
            "The adapter of MLX has alpha and scale, and versions of mlx-lm disagree on whether scale is multiplied by "
            "alpha / rank: remove alpha from lora_parameters, and write the product as scale if it was."
        )
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": config.get("model"),
        "r": rank,
        "lora_alpha": scale * rank,
        "use_dora": kind == "dora" or config.get("use_dora"),  # the latter until the end of 2024
    }


def peft_tensors_of_mlx(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of an adapter of MLX with PEFT's names and shapes. Raises `UnsupportedAdapter`."""
    converted: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise UnsupportedAdapter(
                f"The adapter of MLX holds {key[:120]}, and only LoRA and DoRA in floats are read (lora_a, lora_b, m): "
                "fuse it (`mlx_lm.fuse`) and submit the full model."
            )
        if tensor.ndim > 2:
            raise UnsupportedAdapter(
                f"{key[:120]} is LoRA on the stacked experts of MLX, which is not supported: fuse it (`mlx_lm.fuse`) "
                "and submit the full model."
            )
        if _EMBEDDING.fullmatch(match["module"]):
            raise UnsupportedAdapter(
                f"{key[:120]} is LoRA of MLX on an embedding, which also changes a tied output head: fuse it "
                "(`mlx_lm.fuse`) and submit the full model."
            )
        name = f"{PEFT_PREFIX}{match['module']}.{_PEFT_LEAVES[match['leaf']]}"
        converted[name] = tensor.T.contiguous() if tensor.ndim == 2 else tensor
    return converted
