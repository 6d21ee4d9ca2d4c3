"""Code and quantization that a model's config names and that its files do not have."""

from __future__ import annotations

import re
from typing import Any

import pytest

from catalog.errors import QuantizedWeights, RemoteCode
from workers.finetunes.model_config import without_leftovers
from workers.finetunes.safetensors_file import TensorEntry

FLOATS = {"model.layers.0.mlp.up_proj.weight": TensorEntry("BF16", (64, 32), 0, 4096)}
METHODS = {
    "gptq": ("model.layers.0.mlp.up_proj.qweight", "I32", (4, 64)),
    "bitsandbytes": ("model.layers.0.mlp.up_proj.weight", "U8", (1024, 1)),
    "fp8": ("model.layers.0.mlp.up_proj.weight", "F8_E4M3", (64, 32)),
    "fp8_scales": ("model.layers.0.mlp.up_proj.weight_scale_inv", "F32", (1, 1)),
    "mxfp4": ("model.layers.0.mlp.experts.down_proj_blocks", "U8", (4, 32, 1, 16)),
    "compressed-tensors": ("model.layers.0.mlp.up_proj.weight_packed", "I32", (64, 4)),
    "hqq": ("model.layers.0.mlp.up_proj.W_q", "U8", (32, 32)),
}


def auto_map(model_type: str, config: str, model: str, key: str = "AutoModelForCausalLM") -> dict[str, Any]:
    return {"model_type": model_type, "auto_map": {"AutoConfig": config, key: model}}


@pytest.mark.parametrize(
    "config",
    [
        auto_map("phi3", "configuration_phi3.Phi3Config", "modeling_phi3.Phi3ForCausalLM"),
        auto_map("phi", "microsoft/phi-2--configuration_phi.PhiConfig", "microsoft/phi-2--modeling_phi.PhiForCausalLM"),
        auto_map("mpt", "configuration_mpt.MPTConfig", "modeling_mpt.MPTForCausalLM"),
        auto_map("deepseek_v3", "configuration_deepseek.DeepseekV3Config", "modeling.DeepseekV3Model", "AutoModel"),
        auto_map("ernie4_5", "configuration_ernie4_5.Ernie4_5_Config", "modeling_ernie4_5.Ernie4_5_ForCausalLM"),
        {"model_type": "llama", "auto_map": {"AutoModelForSequenceClassification": "modeling.Reward"}},
        {"model_type": "llama", "trust_remote_code": True},
    ],
    ids=lambda config: config["model_type"],
)
def test_code_of_classes_that_transformers_has_is_removed_and_noted(config: dict[str, Any]):
    cleaned, [note] = without_leftovers(config, FLOATS, "owner/model")
    assert cleaned == {"model_type": config["model_type"]}
    assert note.startswith("The code in the repo of owner/model was not run")


@pytest.mark.parametrize(
    "config",
    [
        auto_map("qwen", "configuration_qwen.QWenConfig", "modeling_qwen.QWenLMHeadModel"),
        auto_map("llama", "configuration.LlamaConfig", "modeling_llama_encoder.LlamaEncoderModel", "AutoModel"),
        auto_map("gpt2", "configuration.GPT2CustomConfig", "modeling.GPT2LMHeadCustomModel"),
        {"model_type": "no_such_type", "auto_map": "x.Y"},
        {"model_type": "no_such_type", "trust_remote_code": True},
        {"model_type": "llama", "auto_map": {"AutoModel": ["x.Y"]}},
    ],
)
def test_code_of_other_classes_is_refused_with_what_to_do(config: dict[str, Any]):
    with pytest.raises(RemoteCode, match=r"never runs the code of a repo. Convert it .*, and remove auto_map"):
        without_leftovers(config, FLOATS, "owner/model")


@pytest.mark.parametrize("method", METHODS)
def test_quantized_weights_are_refused(method: str):
    name, dtype, shape = METHODS[method]
    config = {"model_type": "llama", "quantization_config": {"quant_method": method}}
    with pytest.raises(QuantizedWeights, match=re.escape(f"is quantized ({method})")):
        without_leftovers(config, {**FLOATS, name: TensorEntry(dtype, shape, 0, 0)}, "owner/model")


def test_packed_weights_are_refused_without_a_setting():
    packed = {"model.embed_tokens.weight": TensorEntry("U32", (258, 4), 0, 0)}
    with pytest.raises(QuantizedWeights, match="embed_tokens"):
        without_leftovers({"model_type": "llama"}, packed, "owner/model")


def test_masks_of_old_files_are_no_quantized_weights():
    mask = {"h.0.attn.bias": TensorEntry("U8", (1, 1, 1024, 1024), 0, 0)}
    assert without_leftovers({"model_type": "gpt2"}, {**FLOATS, **mask}, "owner/model") == ({"model_type": "gpt2"}, ())


def test_quantization_of_float_weights_is_noted():
    config = {"model_type": "llama", "text_config": {"quantization_config": {"quant_method": "bitsandbytes"}}}
    _, [note] = without_leftovers(config, FLOATS, "owner/model")
    assert note == "The quantization in config.json (bitsandbytes) was ignored: the weights are not quantized."


def test_method_that_quantizes_floats_when_it_runs_is_refused():
    config = {"model_type": "bitnet", "quantization_config": {"quant_method": "bitnet"}}
    with pytest.raises(QuantizedWeights, match="bitnet"):
        without_leftovers(config, FLOATS, "owner/model")
