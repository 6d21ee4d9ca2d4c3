"""Numbers in configs: those of published models pass, and those that would take any amount of memory do not."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import CONFIG_MAPPING

from catalog.errors import InvalidModelConfig
from workers.finetunes.config_numbers import check_numbers

# the largest and oddest numbers in configs on the Hub
PUBLISHED: dict[str, dict[str, Any]] = {
    "Qwen2.5-1M": {
        "max_position_embeddings": 1_010_000,
        "rope_theta": 10_000_000,
        "dual_chunk_attention_config": {"chunk_size": 262_144, "original_max_position_embeddings": 262_144},
    },
    "Llama-4-Scout": {
        "text_config": {"max_position_embeddings": 10_485_760, "vocab_size": 202_048, "num_local_experts": 16},
        "vision_config": {"intermediate_size": 5632, "projector_input_dim": 4096},
        "image_token_index": 200_092,
    },
    "Gemma-3n": {
        "text_config": {
            "vocab_size": 262_400,
            "vocab_size_per_layer_input": 262_144,
            "hidden_size_per_layer_input": 256,
            "intermediate_size": [16_384] * 35,
            "rope_local_base_freq": 10_000,
        },
        "audio_token_id": 262_273,
        "eoi_token_id": 262_144,
    },
    "DeepSeek-V3": {
        "n_routed_experts": 256,
        "num_experts_per_tok": 8,
        "n_group": 8,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "vocab_size": 129_280,
        "moe_intermediate_size": 2048,
        "qk_rope_head_dim": 64,
    },
    "Llama-3.1-405B": {
        "hidden_size": 16_384,
        "intermediate_size": 53_248,
        "num_attention_heads": 128,
        "num_hidden_layers": 126,
        "eos_token_id": [128_001, 128_008, 128_009],
        "rope_scaling": {"original_max_position_embeddings": 8192},
    },
    "Phi-3": {"max_position_embeddings": 131_072, "sliding_window": 262_144, "bos_token_id": 1},
    "Mamba": {"intermediate_size": 5120, "time_step_rank": 160, "vocab_size": 50_280},
    "GPT-2 XL": {"n_embd": 1600, "n_head": 25, "n_layer": 48, "n_positions": 1024, "n_inner": None},
    "Yi-200K": {"rope_theta": 10_000_000.0, "max_position_embeddings": 200_000, "num_key_value_heads": 8},
    "BERT of a classifier": {"type_vocab_size": 2, "pad_token_id": 0, "vocab_size": 250_037},
    "counters of a training": {"trained_tokens": 15_000_000_000_000, "model_max_length": 10**30, "pad_token_id": -1},
    "switch": {"num_experts": 2048, "tie_word_embeddings": True},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers_are_accepted(name: str):
    check_numbers(PUBLISHED[name], InvalidModelConfig)


@pytest.mark.parametrize("model_type", sorted(CONFIG_MAPPING))
def test_default_numbers_of_transformers_are_accepted(model_type: str):
    try:
        config = CONFIG_MAPPING[model_type]().to_dict()
    except Exception:
        pytest.skip("has no default config")
    check_numbers(config, InvalidModelConfig)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"vocab_size": 10**9}, "vocab_size = 1,000,000,000; the limit is 16,777,216"),
        ({"text_config": {"hidden_size": 10**9}}, "hidden_size"),
        ({"encoder": [{"num_attention_heads": 2**40}]}, "num_attention_heads"),
        ({"num_local_experts": 10**6}, "num_local_experts"),
        ({"n_routed_experts": 10**6}, "n_routed_experts"),
        ({"intermediate_size": [8, 10**12]}, "intermediate_size"),
        ({"anything": 10**4000}, "a number of 13,288 bits"),
        ({"anything": -(2**63)}, "anything"),
    ],
)
def test_number_that_no_model_has_is_refused(config: dict[str, Any], message: str):
    with pytest.raises(InvalidModelConfig, match=message):
        check_numbers(config, InvalidModelConfig)
