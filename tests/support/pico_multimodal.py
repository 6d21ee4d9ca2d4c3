"""Multimodal bases with a text model of two layers, and adapters for them that PEFT creates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel
from transformers import models as architectures

from tests.support.pico import byte_tokenizer
from tests.support.pico_adapters import TASK
from tests.support.pico_models import PICO_SIZES, add_noise, last_hidden

WEIGHTS = "adapter_model.safetensors"
TEXT_LAYERS = r".*(language_model|text_model).*\.(q_proj|down_proj)"
_TEXT = {**PICO_SIZES, "vocab_size": 258}
_VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_IMAGES = {"image_size": 28, "patch_size": 14}
_ROTARY = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}


def gemma3(**vision: Any) -> PreTrainedConfig:
    return architectures.gemma3.Gemma3Config(
        text_config={**_TEXT, "head_dim": 8, "sliding_window": 64, "query_pre_attn_scalar": 8},
        vision_config={**_VISION, **_IMAGES, **vision},
        mm_tokens_per_image=1,
        image_token_index=250,
        boi_token_index=251,
        eoi_token_index=252,
    )


def qwen2_vl() -> PreTrainedConfig:
    return architectures.qwen2_vl.Qwen2VLConfig(
        text_config={**_TEXT, "rope_parameters": _ROTARY},
        vision_config={"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2},
        image_token_id=250,
        video_token_id=251,
        vision_start_token_id=252,
        vision_end_token_id=253,
    )


def qwen2_5_vl() -> PreTrainedConfig:
    return architectures.qwen2_5_vl.Qwen2_5_VLConfig(
        text_config={**_TEXT, "rope_parameters": _ROTARY},
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [1],
        },
        image_token_id=250,
        video_token_id=251,
        vision_start_token_id=252,
        vision_end_token_id=253,
    )


def qwen3_vl() -> PreTrainedConfig:
    return architectures.qwen3_vl.Qwen3VLConfig(
        text_config={**_TEXT, "head_dim": 8, "rope_parameters": _ROTARY},
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
            "deepstack_visual_indexes": [0],
            "num_position_embeddings": 16,
        },
        image_token_id=250,
        video_token_id=251,
        vision_start_token_id=252,
        vision_end_token_id=253,
    )


def internvl() -> PreTrainedConfig:
    return architectures.internvl.InternVLConfig(
        text_config={**_TEXT, "model_type": "qwen2"},
        vision_config={**_VISION, "image_size": [28, 28], "patch_size": [14, 14]},
        image_token_id=250,
    )


def mllama() -> PreTrainedConfig:
    return architectures.mllama.MllamaConfig(
        text_config={
            **_TEXT,
            "num_hidden_layers": 3,
            "cross_attention_layers": [1],
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
            "intermediate_layers_indices": [0],
            "vision_output_dim": 48,  # of a final state and one of the intermediate layers
            "supported_aspect_ratios": [[1, 1]],
            "max_num_tiles": 1,
        },
        image_token_index=250,
    )


def llava() -> PreTrainedConfig:
    return architectures.llava.LlavaConfig(
        text_config={**_TEXT, "model_type": "llama"},
        vision_config={**_VISION, **_IMAGES, "model_type": "clip_vision_model", "projection_dim": 32},
        image_token_index=250,
        image_seq_length=1,
    )


def make_base(folder: Path, config: PreTrainedConfig) -> Path:
    """Write a multimodal base to `folder`: config, safetensors and a byte tokenizer."""
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config)
    add_noise(model, 0, scale=0.1)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def load(folder: Path) -> PreTrainedModel:
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, local_files_only=True)


def make_adapter(base: Path, folder: Path, target_modules: str | list[str] = TEXT_LAYERS, **settings: Any) -> Path:
    """Write a LoRA with random weights."""
    config = peft.LoraConfig(r=4, target_modules=target_modules, task_type=TASK, **settings)
    torch.manual_seed(0)
    tuned = peft.get_peft_model(load(base), config)
    add_noise(tuned, 0, scale=0.3, trainable=True)
    tuned.save_pretrained(folder)
    return folder


def reference(base: Path, adapter: Path) -> np.ndarray:
    """Delta Activations of an adapter that PEFT loads on the whole model, (H,)."""
    tuned = peft.PeftModel.from_pretrained(load(base), adapter, torch_device="cpu")
    return (last_hidden(tuned, base) - last_hidden(load(base), base)).mean(dim=0).numpy()


def rename(adapter: Path, change: Callable[[str], str]) -> Path:
    """Rename an adapter's tensors, in place."""
    tensors = load_file(adapter / WEIGHTS)
    save_file({change(name): tensor for name, tensor in tensors.items()}, adapter / WEIGHTS)
    return adapter


def add_weights(adapter: Path, **weights: torch.Tensor) -> Path:
    """Add tensors to an adapter, by their names without PEFT's prefix."""
    named = {f"base_model.model.{name}": tensor for name, tensor in weights.items()}
    save_file({**load_file(adapter / WEIGHTS), **named}, adapter / WEIGHTS)
    return adapter


def add_lora(adapter: Path, **factors: torch.Tensor) -> Path:
    """Add a LoRA of each module in `factors`, from its A, with a B of zeros for 8 outputs."""
    for name, a in factors.items():
        b = torch.zeros(8, len(a), *[1] * (a.ndim - 2))
        add_weights(adapter, **{f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b})
    return adapter
