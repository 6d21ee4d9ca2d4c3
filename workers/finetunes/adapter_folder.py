"""Reading an adapter: its config, its tensors, and which path can encode it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from catalog.errors import CorruptWeights, InvalidAdapterConfig, UnsupportedAdapter
from workers.finetunes.contents import Files
from workers.finetunes.finetune import FineTune, read_adapter_config
from workers.finetunes.gathering import GATHER_ZERO, empty_tensor, refuse_flattened
from workers.finetunes.lora_config import (
    LORA_KEY,
    MIXTURE_MODULE,
    LoraModule,
    parse_adalora,
    parse_lora,
    target_parameters,
)
from workers.finetunes.mlx import MLX_NOTE, is_mlx, peft_config_of_mlx, peft_tensors_of_mlx
from workers.finetunes.peft_settings import check_settings, peft_type_of, with_defaults
from workers.finetunes.repo_files import ADAPTER_CONFIG
from workers.finetunes.tensor_names import clean_adapter, names_other_part

Load = Callable[[str], dict[str, torch.Tensor]]  # from a file name to its tensors; on "meta" if only screened

VARIANTS = (  # parts of tensors' names that a setting of LoRA adds
    ("use_dora", ".lora_magnitude_vector", "magnitudes of DoRA"),
    ("lora_bias", ".lora_B.bias", "biases of B"),
)
PROMPT_KINDS = ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING")
UNSLOTH_EXPERT = re.compile(r"\.experts\.(gate_up_projs|down_projs)\.\d+\.")


def read_adapter(folder: Path, name: str, weights: Sequence[str], files: Files, load: Load) -> FineTune:
    """Read an adapter from its files `weights`. Raises what `read_finetune` raises for adapters."""
    config = read_adapter_config(folder / ADAPTER_CONFIG, files.read_object)
    mlx = is_mlx(config)
    if mlx:
        config = peft_config_of_mlx(config)
    peft_type = peft_type_of(config, name)
    if peft_type is not None:
        check_settings(config, peft_type)  # before the weights are read
    tensors = _load(name, weights, load)
    if mlx:
        tensors = peft_tensors_of_mlx(tensors)
    _refuse_parts(tensors, peft_type)
    tensors, notes = clean_adapter(tensors)
    if mlx:
        notes += (MLX_NOTE,)
    if peft_type is None:
        peft_type = _type_of_tensors(config, tensors)
        check_settings(config, peft_type)
        notes += (f"{ADAPTER_CONFIG} has no peft_type; the tensors are those of LoRA.",)
    config = with_defaults(config, peft_type)
    path, modules = _path(peft_type, config, tensors)
    card = files.read_card()
    declared, revision = config.get("base_model_name_or_path"), config.get("revision")
    return FineTune(
        name=name,
        kind="dora" if config.get("use_dora") else peft_type.lower(),
        path=path,
        folder=folder,
        config=config,
        shapes={key: tuple(tensor.shape) for key, tensor in tensors.items()},
        declared_base=declared if isinstance(declared, str) and declared else None,
        declared_revision=revision if isinstance(revision, str) and revision else None,
        card_bases=card.bases,
        card=card.words,
        tensors=tensors,
        modules=modules,
        notes=notes,
    )


def _load(name: str, files: Sequence[str], load: Load) -> dict[str, torch.Tensor]:
    """The tensors of an adapter. Raises `InvalidAdapterConfig`, `CorruptWeights`, and what `load` raises."""
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        loaded = load(file)
        if repeated := sorted(tensors.keys() & loaded.keys()):
            raise CorruptWeights(f"{repeated[0][:120]} is in two files of {name}: keep the shards of one adapter only.")
        tensors |= loaded
    if not tensors:
        raise InvalidAdapterConfig(
            f"{name} has no tensors in {files[0]}: nothing was saved, as happens with DeepSpeed ZeRO-3. {GATHER_ZERO}"
        )
    return tensors


def _refuse_parts(tensors: Mapping[str, torch.Tensor], peft_type: str | None) -> None:
    """Raises `InvalidAdapterConfig` for tensors that were saved without being gathered from all GPUs."""
    refuse_flattened(tensors, InvalidAdapterConfig)
    for key, tensor in tensors.items():
        cut_by_adalora = peft_type == "ADALORA" and tensor.ndim == 2  # a module may lose all its ranks
        if tensor.numel() == 0 and not cut_by_adalora:
            raise InvalidAdapterConfig(empty_tensor(key, tuple(tensor.shape)))


def _type_of_tensors(config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> str:
    """The PEFT type of an adapter whose config names none. Raises `InvalidAdapterConfig` unless it can only be LoRA."""
    if {"r", "lora_alpha"} <= config.keys() and all(LORA_KEY.fullmatch(key) for key in tensors):
        return "LORA"
    raise InvalidAdapterConfig(
        f'{ADAPTER_CONFIG} has no peft_type, so it is unknown how the adapter is applied: add it (such as "peft_type": '
        '"LORA"), with the settings of the training.'
    )


def _check_variants(config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Raises `InvalidAdapterConfig` if config and tensors disagree about a variant of LoRA."""
    for setting, part, what in VARIANTS:
        key = next((key for key in tensors if part in key), None)
        if key is not None and not config.get(setting):
            raise InvalidAdapterConfig(
                f"{key[:120]} belongs to the {what}, and {ADAPTER_CONFIG} does not set {setting}: set it to true if "
                "the adapter was trained with it, or save the adapter again without them."
            )
        if key is None and config.get(setting):
            raise InvalidAdapterConfig(
                f"{ADAPTER_CONFIG} sets {setting}, and the tensors hold no {what}: save the adapter again with them, "
                f"or set {setting} to false if it was trained without."
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
    _check_variants(config, tensors)
    _refuse_unsloth_experts(tensors)
    _refuse_convolutions(tensors)
    modules = parse_lora(config, tensors)
    needs_peft = config.get("use_dora") or config.get("lora_bias") or target_parameters(config)
    # whether a part of a mixture of experts is a module depends on the base
    plain = not needs_peft and all(LORA_KEY.fullmatch(key) and not MIXTURE_MODULE.search(key) for key in tensors)
    return ("lora" if plain else "peft"), modules


def _refuse_convolutions(tensors: Mapping[str, torch.Tensor]) -> None:
    """Raises `InvalidAdapterConfig` for LoRA of a convolution, except in parts for images and sound, left out later."""
    for key, tensor in tensors.items():
        if tensor.ndim > 2 and LORA_KEY.fullmatch(key) and not names_other_part(key):
            raise InvalidAdapterConfig(
                f"{key[:120]} has {tensor.ndim} dimensions: only LoRA on linear layers and embeddings is supported, "
                "whose A and B are matrices. Submit the merged model."
            )


def _refuse_unsloth_experts(tensors: Mapping[str, torch.Tensor]) -> None:
    for key in tensors:
        if UNSLOTH_EXPERT.search(key):
            raise UnsupportedAdapter(
                f"{key[:120]} is in unsloth's layout of gpt-oss, with a linear layer for each expert, which other "
                "programs do not have. Merge the adapter (unsloth's save_pretrained_merged) and submit the merged "
                "model, or train the experts by PEFT's target_parameters."
            )
