"""Reading an adapter: its config, its tensors, and which path can encode it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from catalog.errors import InvalidAdapterConfig, UnsupportedAdapter
from workers.finetunes.finetune import FineTune, read_config
from workers.finetunes.lora_config import (
    LORA_KEY,
    MIXTURE_MODULE,
    LoraModule,
    check_lora,
    parse_adalora,
    parse_lora,
    target_parameters,
)
from workers.finetunes.peft_kinds import KINDS
from workers.finetunes.repo_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from workers.finetunes.tensor_names import clean_adapter

Load = Callable[[str], dict[str, torch.Tensor]]  # from a file name to its tensors; on "meta" if only screened

PROMPT_KINDS = ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING")
DORA_MAGNITUDE = "lora_magnitude_vector"
UNSLOTH_EXPERT = re.compile(r"\.experts\.(gate_up_projs|down_projs)\.\d+\.")
REPLACEMENT_KINDS = ("LN_TUNING", "TRAINABLE_TOKENS")  # weights that replace the base's


def read_adapter(folder: Path, name: str, card_base: str | None, load: Load) -> FineTune:
    """Read an adapter. Raises what `read_finetune` raises for adapters."""
    config = read_config(folder / ADAPTER_CONFIG, InvalidAdapterConfig)
    peft_type = config.get("peft_type")
    if peft_type not in ("LORA", "ADALORA", *KINDS, *PROMPT_KINDS, *REPLACEMENT_KINDS):
        raise UnsupportedAdapter(f"{name} has the PEFT type {str(peft_type)[:40]!r}, which is not supported.")
    if peft_type in ("LORA", "ADALORA"):
        check_lora(config)
    tensors, notes = clean_adapter(load(ADAPTER_WEIGHTS))
    if not tensors:
        raise InvalidAdapterConfig(f"{name} has no tensors.")
    path, modules = _path(str(peft_type), config, tensors)
    declared = config.get("base_model_name_or_path")
    return FineTune(
        name=name,
        kind="dora" if config.get("use_dora") else str(peft_type).lower(),
        path=path,
        folder=folder,
        config=config,
        shapes={key: tuple(tensor.shape) for key, tensor in tensors.items()},
        declared_base=declared if isinstance(declared, str) and declared else None,
        card_base=card_base,
        tensors=tensors,
        modules=modules,
        notes=notes,
    )


def _path(
    peft_type: str, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> tuple[str, dict[str, LoraModule]]:
    """The encoding path, and the low-rank modules."""
    if peft_type in PROMPT_KINDS:
        return "prompt", {}
    if peft_type == "ADALORA":
        modules = parse_adalora(config, tensors)
        plain = len(tensors) == 3 * len(modules) and not any(MIXTURE_MODULE.search(key) for key in tensors)
        return ("lora" if plain else "peft"), modules
    if peft_type != "LORA":
        return "peft", {}
    _check_magnitudes(config, tensors)
    _refuse_unsloth_experts(tensors)
    modules = parse_lora(config, tensors)
    needs_peft = config.get("use_dora") or config.get("lora_bias") or target_parameters(config)
    # whether a part of a mixture of experts is a module depends on the base
    plain = not needs_peft and all(LORA_KEY.fullmatch(key) and not MIXTURE_MODULE.search(key) for key in tensors)
    return ("lora" if plain else "peft"), modules


def _check_magnitudes(config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Raises `InvalidAdapterConfig` if the config and the file disagree about DoRA."""
    magnitudes = any(DORA_MAGNITUDE in key for key in tensors)
    if magnitudes and not config.get("use_dora"):
        raise InvalidAdapterConfig(
            f"The file has DoRA's magnitudes ({DORA_MAGNITUDE}), but adapter_config.json does not set use_dora. Set it "
            "if the adapter was trained with DoRA, else take these tensors out of the file."
        )
    if config.get("use_dora") and not magnitudes:
        raise InvalidAdapterConfig(
            f"use_dora is set in adapter_config.json, but the file has no DoRA magnitudes ({DORA_MAGNITUDE}). Save the "
            "adapter again with them, or set use_dora to false if it was trained without DoRA."
        )


def _refuse_unsloth_experts(tensors: Mapping[str, torch.Tensor]) -> None:
    for key in tensors:
        if UNSLOTH_EXPERT.search(key):
            raise UnsupportedAdapter(
                f"{key[:120]} is in unsloth's layout of gpt-oss, with a linear layer for each expert, which other "
                "programs do not have. Merge the adapter (unsloth's save_pretrained_merged) and submit the merged "
                "model, or train the experts by PEFT's target_parameters."
            )
