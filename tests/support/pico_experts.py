"""Mixtures of experts with two layers and hidden size 32, and LoRAs of them in the layouts that are on hubs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tests.support.pico import byte_tokenizer
from tests.support.pico_models import PICO_SIZES, add_noise

EXPERTS = 4
RANK = 3
ALPHA = 6
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."

_SIZES: dict[str, Any] = {
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 40,
    "num_experts": EXPERTS,
    "num_local_experts": EXPERTS,
    "n_routed_experts": EXPERTS,
    "num_experts_per_tok": 2,
    "head_dim": 8,
}
_DEEPSEEK = {
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "mixtral": {},
    "qwen2_moe": {},
    "qwen3_moe": {"mlp_only_layers": [1]},
    "olmoe": {},
    "deepseek_v2": _DEEPSEEK | {"topk_method": "greedy"},
    "deepseek_v3": _DEEPSEEK,
    "glm4_moe": {"first_k_dense_replace": 1, "n_group": 1, "topk_group": 1},
    "phimoe": {"num_local_experts": EXPERTS},
    "ernie4_5_moe": {"moe_num_experts": EXPERTS, "moe_k": 2, "moe_layer_start_index": 0, "moe_layer_end_index": 1},
    "llama4_text": {"intermediate_size_mlp": 48, "interleave_moe_layer_step": 1, "num_experts_per_tok": 1},
    "gpt_oss": {"sliding_window": 16},
    "granitemoe": {},
    "granitemoeshared": {"shared_intermediate_size": 40},
    "lfm2_moe": {"num_dense_layers": 1, "layer_types": ["full_attention", "full_attention"]},
}


def make_base(folder: Path, family: str, seed: int = 0) -> Path:
    """Write a base to `folder`, in the layout of files that transformers 4 wrote and today's writes, too."""
    config_class = CONFIG_MAPPING[family]
    known = config_class()
    tokenizer = byte_tokenizer()
    sizes = {name: size for name, size in {**PICO_SIZES, **_SIZES}.items() if hasattr(known, name)}
    torch.manual_seed(seed)
    config = config_class(**{**sizes, "vocab_size": len(tokenizer), **FAMILIES[family]})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    add_noise(model, seed, scale=0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def lora_config(**settings: Any) -> peft.LoraConfig:
    return peft.LoraConfig(**{"r": RANK, "lora_alpha": ALPHA, "target_modules": [], **settings}, task_type="CAUSAL_LM")


def publish_by_layer(
    base: Path, folder: Path, chosen: Callable[[str], bool], *, seed: int = 0, **settings: Any
) -> dict[str, torch.Tensor]:
    """Write a LoRA of chosen matrices of a base's files, a pair for each, as PEFT did with transformers 4, which had a
    linear layer for each of them. Returns the base's tensors with the changes merged.
    """
    config = lora_config(**settings)
    generator = torch.Generator().manual_seed(seed)
    tensors, merged = {}, load_file(base / "model.safetensors")
    scale = config.lora_alpha / (RANK**0.5 if config.use_rslora else RANK)
    for name, weight in merged.items():
        module = name.removesuffix(".weight")
        if weight.ndim != 2 or module == name or not chosen(module):
            continue
        a = torch.randn(RANK, weight.shape[1], generator=generator)
        b = 0.3 * torch.randn(weight.shape[0], RANK, generator=generator)
        tensors |= {f"{PREFIX}{module}.lora_A.weight": a, f"{PREFIX}{module}.lora_B.weight": b}
        merged[name] = weight + scale * b @ a
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS)
    targets = sorted({name.split(".lora_")[0].rpartition(".")[2] for name in tensors})
    content = config.to_dict() | {"target_modules": targets, "inference_mode": True}
    (folder / CONFIG).write_text(json.dumps(content, default=list))
    return merged


def write_merged(base: Path, folder: Path, merged: Mapping[str, torch.Tensor]) -> Path:
    """Write a full model with the files of a base and other weights."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in base.iterdir():
        if path.suffix == ".json":
            (folder / path.name).write_bytes(path.read_bytes())
    save_file(dict(merged), folder / "model.safetensors", metadata={"format": "pt"})
    return folder
