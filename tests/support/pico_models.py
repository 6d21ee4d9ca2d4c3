"""Ten architectures with two layers and hidden size 32, and adapters for them that PEFT creates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers import models as architectures

from catalog.spaces.probes import ProbeSet
from tests.support.pico import byte_tokenizer

HIDDEN, LAYERS = 32, 2
# prompts of different lengths; the longest exceeds the sliding windows below
PROBES = ProbeSet("pico", ("Please answer.", "a", "The longest of the three prompts reads on and on."))

PICO_SIZES: dict[str, Any] = {
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
# all architectures in `make check-all`, the common ones in `make test`
ARCHITECTURE_PARAMS = [
    name if name in COMMON else pytest.param(name, marks=pytest.mark.exhaustive) for name in ARCHITECTURES
]


def attention(architecture: str) -> list[str]:
    return ATTENTION.get(architecture, ["q_proj", "v_proj"])


def feedforward(architecture: str) -> list[str]:
    return FEEDFORWARD.get(architecture, ["down_proj"])


def norms(architecture: str) -> list[str]:
    return NORMS.get(architecture, ["input_layernorm", "norm"])


def make_base(folder: Path, architecture: str, seed: int = 0) -> Path:
    """Write a base model to `folder`: config, safetensors and a byte tokenizer."""
    config_class, options = ARCHITECTURES[architecture]
    return write_base(folder, pico_config(config_class, **options), seed)


def pico_config(config_class: type, **options: Any) -> PreTrainedConfig:
    """A config of a class with the pico sizes, as far as the class has them."""
    sizes = {name: size for name, size in PICO_SIZES.items() if hasattr(config_class(), name)}
    return config_class(**{**sizes, "vocab_size": len(byte_tokenizer()), **options})


def write_base(folder: Path, config: PreTrainedConfig, seed: int = 0) -> Path:
    """Write a base model of a config to `folder`, with random weights and a byte tokenizer."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    add_noise(model, seed, scale=0.1)  # biases and norms too, which are initialized to zeros and ones
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def make_adapter(
    base: Path,
    folder: Path,
    config: peft.PeftConfig,
    *,
    seed: int = 0,
    prepare: Callable[[PreTrainedModel], object] | None = None,
    scale: float = 0.3,
    **save_options: Any,
) -> Path:
    """Write an adapter with random weights. `prepare` may change the base first, such as its vocabulary."""
    torch.manual_seed(seed)
    model = load(base)
    if prepare:
        prepare(model)
    tuned = peft.get_peft_model(model, config)
    add_noise(tuned, seed, scale=scale, trainable=True)
    tuned.save_pretrained(folder, **save_options)
    return folder


def add_noise(model: torch.nn.Module, seed: int, *, scale: float, trainable: bool = False) -> None:
    """Add normal noise to every parameter, or to every trainable one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad or not trainable:
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)


def load_with(base: Path, adapter: Path, prepare: Callable[[PreTrainedModel], object] | None = None) -> peft.PeftModel:
    """Load the adapter with PEFT on a fresh copy of the base."""
    model = load(base)
    if prepare:
        prepare(model)
    return peft.PeftModel.from_pretrained(model, adapter, torch_device="cpu")


def last_hidden(model: torch.nn.Module, base: Path) -> torch.Tensor:
    """`hidden_states[-1]` of the last token of each probe, (N, H). Each prompt runs alone, without padding."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = []
    for prompt in PROBES.prompts:
        with torch.no_grad():
            output = model.eval()(**tokenizer(prompt, return_tensors="pt"), output_hidden_states=True)
        rows.append(output.hidden_states[-1][0, -1])
    return torch.stack(rows)


def reference(base: Path, tuned: torch.nn.Module) -> np.ndarray:
    """Delta Activations as the paper defines them, from two complete causal LMs, (H,)."""
    return (last_hidden(tuned, base) - last_hidden(load(base), base)).mean(dim=0).numpy()


def relative_error(vector: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(vector - expected) / np.linalg.norm(expected))
