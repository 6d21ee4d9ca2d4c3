"""Tiny configs of the model types that transformers registers: width 32, two layers or one for each kind of layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSpeechSeq2Seq,
    PreTrainedConfig,
)
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

HIDDEN, VOCABULARY = 32, 258
NOISY = 0.2  # the usual initial 0.02 leaves a model of this width nearly linear

_SIZES = (
    (
        HIDDEN,
        "hidden_size n_embd d_model dim embed_dim hidden_dim dim_model embedding_size word_embed_proj_dim",
    ),
    (
        HIDDEN,
        "emb_dim lru_width hidden_size_global projection_dim out_hidden_size encoder_hidden_size",
    ),
    (HIDDEN, "projector_hidden_size vision_hidden_size input_embedding_size output_embedding_size embedding_dim"),
    (HIDDEN, "moe_intermediate_size shared_expert_intermediate_size moe_shared_expert_intermediate_size"),
    (HIDDEN, "expert_ffn_hidden_size shared_experts_intermediate_size backbone_hidden_size attention_hidden_size"),
    (HIDDEN, "ext_pw_out_channel depthwise_separable_out_channel nemo_conv_channels downsample_hidden_size"),
    (HIDDEN, "image_size adapter_in_dim adapter_out_dim adapter_input_size router_hidden_size vision_output_dim"),
    (HIDDEN, "projector_input_dim projector_output_dim text_hidden_size"),
    (64, "intermediate_size n_inner ffn_dim d_ff encoder_ffn_dim decoder_ffn_dim ffn_hidden_size dim_ff dff mlp_dim"),
    (64, "mamba_d_ssm dense_intermediate_size intermediate_size_mlp feed_forward_size shared_intermediate_size"),
    (2, "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers depth num_decoder_layers"),
    (2, "num_encoder_layers layers num_blocks"),
    (4, "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads"),
    (4, "attention_heads mamba_num_heads mamba_n_heads swa_num_attention_heads num_encoder_attention_heads"),
    (4, "num_decoder_attention_heads linear_num_value_heads linear_num_heads n_mamba_heads"),
    (2, "num_key_value_heads kv_n_heads num_kv_heads swa_num_key_value_heads linear_num_key_heads num_query_groups"),
    (8, "head_dim kv_channels d_kv dim_head query_pre_attn_scalar v_head_dim swa_head_dim linear_key_head_dim"),
    (8, "linear_value_head_dim linear_head_dim global_head_dim index_head_dim attention_head_dim swa_v_head_dim"),
    (8, "mamba_d_state state_size ssm_state_size q_lora_rank kv_lora_rank o_lora_rank hidden_size_per_layer_input"),
    (8, "laurel_rank attention_head_size"),
    (4, "qk_nope_head_dim qk_rope_head_dim mamba_d_conv conv_kernel linear_conv_kernel_dim index_topk mamba_dt_rank"),
    (4, "n_routed_experts num_experts num_local_experts moe_num_experts time_step_rank rotary_dim"),
    (16, "mamba_d_head mamba_head_dim chunk_size mamba_chunk_size sliding_window sliding_window_size patch_size"),
    (16, "attention_window_size window_size attention_chunk_size adapter_rank shape_vocab_size shape_embed_dim"),
    (16, "index_n_heads"),  # with few heads, many keys have the score 0, and which of them are read is arbitrary
    (16, "pronunciation_vocab_size pronunciation_embed_dim block_multiple_of"),
    (2, "num_experts_per_tok num_experts_per_token moe_topk moe_k moe_top_k mamba_expand expand"),
    (1, "n_group topk_group num_expert_group n_shared_experts moe_num_shared_experts num_shared_experts"),
    (1, "mamba_n_groups n_groups first_k_dense_replace num_nextn_predict_layers num_dense_layers"),
    (VOCABULARY, "vocab_size vocab_size_per_layer_input"),
    (512, "max_position_embeddings n_positions n_ctx model_max_length max_seq_len max_target_positions"),
    (512, "max_source_positions"),
    (1, "eos_token_id pad_token_id"),
    (0, "bos_token_id"),
)
SIZES = {name: size for size, names in _SIZES for name in names.split()}
# `None` turns these off; `None` in other sizes is filled in by a class, if at all
OPTIONAL = ("sliding_window", "n_inner", "bos_token_id", "eos_token_id", "pad_token_id", "hidden_size_per_layer_input")
LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
LAYER_KINDS = ("layer_types", "layers_block_type", "block_types", "mlp_layer_types", "attention_layers")
INITIAL = ("initializer_range", "init_std", "initializer_factor")

_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_TWO_ROPES = {"rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE}}
_MROPE = {"rope_parameters": _ROPE | {"mrope_section": [2, 1, 1]}}
_PARTIAL_MROPE = {
    "num_attention_heads": 2,
    "head_dim": 16,
    "rope_parameters": _ROPE | {"mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5},
}
_INDEXER = {
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
    "indexer_budget": 8,
    "indexer_compress_ratio": 2,
    "hc_lowrank": 8,
}
_SHARED_BLOCKS = {  # the second block with shared weights is the first one that shares
    "layers_block_type": ["linear_attention", "hybrid"] * 2,
    "num_hidden_layers": 4,
    "attention_hidden_size": 64,
    "attention_head_dim": 16,
}
_VISION_TOKENS = {"base_channels": 32, "channel_multiplier": [1, 1], "num_res_blocks": 1, "num_embeddings": 8}
_DOTS3 = {
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 4,
    "swa_q_lora_rank": 8,
    "swa_kv_lora_rank": 8,
    "swa_head_dim": 8,
    "swa_qk_nope_head_dim": 4,
    "swa_v_head_dim": 8,
    "head_dim": 8,
}
EXTRAS: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "blt": {"encoder_hash_byte_group_vocab": 64},
    "cohere2_vision": {"downsample_factor": 1},
    "cohere_compass": {"text_config": _TWO_ROPES},
    "cohere_compass_text": _TWO_ROPES,
    "chameleon": {"vocabulary_map": {"<image>": 5}, "vq_config": _VISION_TOKENS},
    "cosmos3_edge": {"text_config": _MROPE},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0}},
    "dots3_note": {"text_config": _DOTS3},
    "dots3_note_text": _DOTS3,
    "emu3": {"vocabulary_map": {"<image>": 5}, "vq_config": _VISION_TOKENS},
    "gemma3n_text": {
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_hidden_layers": 4,
        "intermediate_size": [64] * 4,
        "activation_sparsity_pattern": [0.5, 0.5, 0.0, 0.0],
    },
    "glm46v": {"text_config": _PARTIAL_MROPE},
    "glm4v": {"text_config": _PARTIAL_MROPE},
    "glm4v_moe": {"text_config": _PARTIAL_MROPE},
    "glm_ocr": {"text_config": _PARTIAL_MROPE},
    "glmga": {"text_config": _PARTIAL_MROPE},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "hunyuan_vl": {"text_config": {"rope_parameters": _ROPE | {"mrope_section": [1, 1, 1, 1]}}},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_vl": {"text_config": {"layer_types": ["conv", "full_attention"], "block_multiple_of": 16}},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"head_dim": 16},
    "paddleocr_vl": {"text_config": _MROPE},
    "qwen2_5_omni_thinker": {"text_config": _MROPE},
    "qwen2_5_vl": {"text_config": _MROPE},
    "qwen2_vl": {"text_config": _MROPE},
    "qwen4_exp": {"text_config": _INDEXER},
    "qwen4_exp_text": _INDEXER,
    "reformer": {"is_decoder": True, "axial_pos_embds_dim": [8, 24], "axial_pos_shape": [16, 32]},
    "step3p7": {"text_config": {"sliding_window": 16}},
    "xmod": {"default_language": "en_XX"},
    "zamba": _SHARED_BLOCKS,
    "zamba2": _SHARED_BLOCKS | {"mamba_headdim": 16},
    "zaya": {"num_experts_per_tok": 1},
}

CAUSAL = tuple(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
IMAGE_TEXT = tuple(modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)

# names of models that are not the default of a type of `CAUSAL`: the type, the class they are saved from, settings
VARIANTS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "bert-decoder": ("bert", AutoModelForCausalLM, {"is_decoder": True}),
    "embeddinggemma": ("gemma3_text", AutoModelForCausalLM, {"use_bidirectional_attention": True}),
    "modernbert": ("modernbert", AutoModelForMaskedLM, {}),
    "opt-350m": ("opt", AutoModelForCausalLM, {"word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "t5": ("t5", AutoModelForSeq2SeqLM, {}),
    "whisper-whole": ("whisper", AutoModelForSpeechSeq2Seq, {}),
}

_BOTH_WAYS = "attend to later ones"
_ENCODER_DECODER = "encoder-decoder"
# models to which the method does not apply, and what the refusal says
REFUSED: dict[str, str] = {
    **dict.fromkeys(
        (
            *("bert", "bert-generation", "big_bird", "camembert", "cpmant", "data2vec-text", "electra", "ernie"),
            *("megatron-bert", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm", "xlnet"),
            *("xlm-roberta", "xlm-roberta-xl", "xmod", "modernbert", "embeddinggemma"),
        ),
        _BOTH_WAYS,
    ),
    **dict.fromkeys(
        (
            *("bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "marian", "mbart", "mvp", "pegasus"),
            *("plbart", "prophetnet", "t5"),
        ),
        _ENCODER_DECODER,
    ),
    "whisper": "a speech model",
    "whisper-whole": "a speech model",
    "paligemma": "a prefix language model",
    "blt": "no number of layers",  # it reads bytes, which it joins to patches
    "trocr": _ENCODER_DECODER,
    "reformer": "64 dimensions",  # two streams, which its reversible layers need
    "opt-350m": "16 dimensions",
}
NOT_MADE = (  # types of `CAUSAL` of which the installed transformers makes no tiny model that reads text
    "gemma3n",  # its vision tower needs timm
    "gemma4_assistant",  # drafts for another model, whose keys and values it reads
    "gemma4_unified_assistant",
    "musicgen",  # reads codes of sounds
    "musicgen_melody",
)
_MULTIMODAL = (
    "aria aya_vision chameleon cohere2_vision cohere_compass cosmos3_edge cosmos3_omni deepseek_vl exaone4_5",
    "glm46v glm4v glm4v_moe glm_ocr glmga granite_docling hunyuan_vl hyperclovax_vision_v2 idefics2 idefics3",
    "inkling2 inkling_mm_model internvl kimi_k25 lfm2_vl lfm3_vl llava llava_next llava_next_video llava_onevision",
    "mistral3 mistral4 qwen2_5_vl qwen2_vl qwen3_vl qwen3_vl_moe smolvlm step3p7 video_llama_3",
    "video_llava vipllava lighton_ocr minicpm_ocr minicpmv4_6 minicpmv4_7 minimax_m3_vl mistral_large4 muse_glimmer",
    "ovis2 paddleocr_vl pp_chart2table qianfan_ocr",
)
MULTIMODAL = tuple(name for names in _MULTIMODAL for name in names.split())
MEASURED = tuple(
    name for name in (*CAUSAL, *MULTIMODAL, "bert-decoder") if name not in REFUSED and name not in NOT_MADE
)
HYBRIDS = (
    *("lfm2", "granitemoehybrid", "minimax", "recurrent_gemma", "qwen3_next", "nemotron", "nemotron_h", "falcon"),
    *("gptj", "gpt_oss", "mamba", "bamba", "jamba", "zamba2", "falcon_h1"),
)
PEFT_KINDS = ("dora", "ia3", "loha", "prompt_tuning", "prefix_tuning")
KINDS_OF_HYBRIDS = tuple(
    (name, kind) for name in HYBRIDS for kind in PEFT_KINDS if (name, kind) != ("mamba", "prefix_tuning")
)
# PEFT's own forward pass fails: recurrent layers and shared heads have no keys and values of the prefix's shape
REFUSED_KINDS = tuple(
    (name, "prefix_tuning")
    for name in (
        *("bamba", "falcon", "falcon_h1", "granitemoehybrid", "jamba", "lfm2", "minimax", "nemotron_h", "qwen3_next"),
        "zamba2",
    )
)


def auto_class(name: str) -> Any:
    """The class with an output head that a model is saved from: the multimodal one if its type has one."""
    if name in VARIANTS:
        return VARIANTS[name][1]
    return AutoModelForImageTextToText if name in IMAGE_TEXT else AutoModelForCausalLM


def tiny_config(name: str) -> PreTrainedConfig:
    model_type, _, settings = VARIANTS.get(name, (name, None, EXTRAS.get(name, {})))
    config_class = CONFIG_MAPPING[model_type]
    return config_class(**_merged(_tiny_sizes(config_class()), settings))


def _tiny_sizes(config: PreTrainedConfig) -> dict[str, Any]:
    """Small values of all settings of a config, and of the configs in it, that are sizes."""
    settings = {name: value for name, value in vars(config).items() if not name.startswith("_")}
    kinds = {name: list(dict.fromkeys(settings[name])) for name in LAYER_KINDS if settings.get(name)}
    layers = max([2, *map(len, kinds.values())])
    sizes: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, PreTrainedConfig):
            sizes[name] = _tiny_sizes(value) | ({"model_type": value.model_type} if value.model_type else {})
        elif name in kinds:
            sizes[name] = (kinds[name] * layers)[:layers]
        elif name in LAYER_COUNTS and isinstance(value, int):
            sizes[name] = layers
        elif name in INITIAL and isinstance(value, float):
            sizes[name] = NOISY
        elif (
            name in SIZES and not isinstance(value, bool | list | tuple) and (value is not None or name not in OPTIONAL)
        ):
            sizes[name] = SIZES[name]
    if "kv_lora_rank" in sizes:  # multi-head latent attention: keys and values are those of all heads
        sizes |= {"head_dim": SIZES["qk_rope_head_dim"], "num_key_value_heads": SIZES["num_attention_heads"]}
    return sizes


def _merged(sizes: dict[str, Any], extras: Mapping[str, Any]) -> dict[str, Any]:
    inner = {name: _merged(sizes[name], value) for name, value in extras.items() if name.endswith("config")}
    return sizes | extras | inner
