"""Ten architectures in pico size (two layers, hidden 32), and adapters of every kind for them, made by PEFT itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import models as architectures

from catalog.spaces.probes import ProbeSet
from tests.support.pico import byte_tokenizer

HIDDEN, LAYERS = 32, 2
# of unlike lengths, the longest beyond the sliding windows below
PROBES = ProbeSet("pico", ("Please answer.", "a", "The longest of the three prompts reads on and on."))

_SIZES: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
    "initializer_range": 0.2,  # the usual 0.02 leaves a model of this width nearly linear
}
_GEMMA = {"head_dim": 8, "sliding_window": 16, "query_pre_attn_scalar": 8}
ARCHITECTURES: dict[str, tuple[type, dict[str, Any]]] = {
    "llama": (architectures.llama.LlamaConfig, {}),
    "mistral": (architectures.mistral.MistralConfig, {"sliding_window": 16}),
    "qwen2": (architectures.qwen2.Qwen2Config, {}),
    "qwen3": (architectures.qwen3.Qwen3Config, {"head_dim": 8}),
    "gemma2": (architectures.gemma2.Gemma2Config, _GEMMA),
    "gemma3": (architectures.gemma3.Gemma3TextConfig, _GEMMA),
    "phi3": (architectures.phi3.Phi3Config, {"sliding_window": None}),
    "gpt2": (
        architectures.gpt2.GPT2Config,
        {"n_embd": HIDDEN, "n_layer": LAYERS, "n_head": 4, "n_positions": 256, "n_inner": 64},
    ),
    "gpt_neox": (architectures.gpt_neox.GPTNeoXConfig, {}),
    "mixtral": (architectures.mixtral.MixtralConfig, {"num_local_experts": 4, "num_experts_per_tok": 2}),
}
ATTENTION = {  # the linear layers into and out of attention
    "phi3": ["qkv_proj", "o_proj"],
    "gpt2": ["c_attn", "c_proj"],
    "gpt_neox": ["query_key_value", "dense"],
}
FEEDFORWARD = {"phi3": ["down_proj"], "gpt2": ["c_proj"], "gpt_neox": ["dense_4h_to_h"], "mixtral": []}
NORMS = {"gpt2": ["ln_1", "ln_f"], "gpt_neox": ["input_layernorm", "final_layer_norm"]}
EMBEDDING = {"gpt2": "wte", "gpt_neox": "embed_in"}
HEAD = {"gpt_neox": "embed_out"}

COMMON = ("llama", "gpt2", "gemma2")
# what is tried of every architecture by `make check-all`, and of the common ones by `make test`
EACH_ARCHITECTURE = [
    name if name in COMMON else pytest.param(name, marks=pytest.mark.exhaustive) for name in ARCHITECTURES
]


def attention(architecture: str) -> list[str]:
    return ATTENTION.get(architecture, ["q_proj", "v_proj"])


def feedforward(architecture: str) -> list[str]:
    return FEEDFORWARD.get(architecture, ["down_proj"])


def norms(architecture: str) -> list[str]:
    return NORMS.get(architecture, ["input_layernorm", "norm"])


def make_base(folder: Path, architecture: str, seed: int = 0) -> Path:
    """A base's folder: config, safetensors, and the tokenizer that reads bytes."""
    torch.manual_seed(seed)
    tokenizer = byte_tokenizer()
    make_config, more = ARCHITECTURES[architecture]
    sizes = {name: size for name, size in _SIZES.items() if hasattr(make_config(), name)}
    config = make_config(**{**sizes, "vocab_size": len(tokenizer), **more})
    model = AutoModelForCausalLM.from_config(config)
    disturb(model, seed, scale=0.1)  # biases and norms too, which begin as zeros and ones
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_adapter(
    base: Path,
    folder: Path,
    config: peft.PeftConfig,
    *,
    seed: int = 0,
    before: Callable[[PreTrainedModel], object] | None = None,
    scale: float = 0.3,
    **saving: Any,
) -> Path:
    """An adapter with random weights as its author would publish it; `before` may change the base (its vocabulary)."""
    torch.manual_seed(seed)
    model = load(base)
    if before:
        before(model)
    tuned = peft.get_peft_model(model, config)
    disturb(tuned, seed, scale=scale, trainable=True)
    tuned.save_pretrained(folder, **saving)
    return folder


def disturb(model: torch.nn.Module, seed: int, *, scale: float, trainable: bool = False) -> None:
    """Adds noise to every (trainable) parameter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad or not trainable:
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)


def load_with(base: Path, adapter: Path, before: Callable[[PreTrainedModel], object] | None = None) -> peft.PeftModel:
    """PEFT's own way: the adapter on a base that nobody else has touched."""
    model = load(base)
    if before:
        before(model)
    return peft.PeftModel.from_pretrained(model, adapter, torch_device="cpu")


def last_hidden(model: torch.nn.Module, base: Path) -> torch.Tensor:
    """`hidden_states[-1]` of each probe's last token, each prompt alone and without padding, (N, H)."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = []
    for prompt in PROBES.prompts:
        with torch.no_grad():
            output = model.eval()(**tokenizer(prompt, return_tensors="pt"), output_hidden_states=True)
        rows.append(output.hidden_states[-1][0, -1])
    return torch.stack(rows)


def reference(base: Path, tuned: torch.nn.Module) -> np.ndarray:
    """Delta Activations as the paper defines them, from two whole causal LMs, (H,)."""
    return (last_hidden(tuned, base) - last_hidden(load(base), base)).mean(dim=0).numpy()


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
