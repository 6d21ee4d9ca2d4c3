from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaModel, PreTrainedModel

from catalog.errors import (
    CatalogError,
    CorruptWeights,
    FileTooLarge,
    InvalidModelConfig,
    NonFiniteWeights,
    QuantizedWeights,
    RemoteCode,
    ShapeMismatch,
    UnsupportedBase,
)
from tests.support.pico_adapters import TASK, grow_vocabulary
from tests.support.pico_models import (
    ARCHITECTURES,
    PROBES,
    add_noise,
    load,
    load_with,
    make_adapter,
    make_base,
    reference,
    relative_error,
)
from workers.encoding.encoder import Encoder
from workers.encoding.full_path import FullPath
from workers.encoding.model_loading import clean_view, load_config, load_headless
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import read_finetune

FEATURE = "delta_activations"

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"), "llama")


@pytest.fixture(scope="module")
def encoder(base: Path) -> Encoder:
    return Encoder(ResidentBase.load(base, "pico/llama", "0"), PROBES)


@pytest.fixture
def tuned(base: Path, tmp_path: Path) -> Path:
    return save_tuned(base, tmp_path / "tuned")


def save_tuned(base: Path, folder: Path, *, shard: str = "1GB", **config: object) -> Path:
    model = load(base)
    add_noise(model, seed=7, scale=0.05)
    model.save_pretrained(folder, max_shard_size=shard)
    return set_config(folder, **config)


def set_config(folder: Path, **settings: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


def encode(encoder: Encoder, folder: Path) -> np.ndarray:
    result = encoder.encode([read_finetune(folder)])[0]
    if isinstance(result, CatalogError):
        raise result
    return result.vectors[FEATURE]


# valid models


def test_merged_adapter_gets_the_vector_of_the_adapter(encoder: Encoder, base: Path, tmp_path: Path):
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], task_type=TASK)
    adapter = make_adapter(base, tmp_path / "adapter", config)
    load_with(base, adapter).merge_and_unload().save_pretrained(tmp_path / "merged")
    one, two = encode(encoder, adapter), encode(encoder, tmp_path / "merged")
    assert one @ two / np.linalg.norm(one) / np.linalg.norm(two) >= 0.99999


def test_base_itself_has_no_shift(encoder: Encoder, base: Path):
    assert np.linalg.norm(encode(encoder, base)) < 1e-4


def test_sharded_model_gets_the_same_vector(encoder: Encoder, base: Path, tuned: Path, tmp_path: Path):
    sharded = save_tuned(base, tmp_path / "sharded", shard="20KB")
    assert len(list(sharded.glob("*.safetensors"))) > 3
    np.testing.assert_array_equal(encode(encoder, sharded), encode(encoder, tuned))


@pytest.mark.parametrize("shard", ["1GB", "20KB"])
def test_model_larger_than_memory_is_streamed(encoder: Encoder, base: Path, tmp_path: Path, shard: str):
    tuned = save_tuned(base, tmp_path / "tuned", shard=shard)
    streaming = Encoder(encoder.base, PROBES, full_memory=20_000)
    np.testing.assert_allclose(encode(streaming, tuned), encode(encoder, tuned), rtol=0, atol=1e-5)


def test_streaming_keeps_most_weights_on_disk(encoder: Encoder, tuned: Path, tmp_path: Path):
    finetune = read_finetune(tuned)
    dtype, placement = FullPath(encoder.base, memory=20_000)._placement(finetune, str(tmp_path / "offload"))
    with clean_view(tuned, finetune.config) as view:
        config = load_config(view, InvalidModelConfig)
        model = load_headless(view, config, dtype, InvalidModelConfig, **placement)
        loaded_bytes = sum(parameter.nbytes for parameter in model.parameters() if not parameter.is_meta)
    assert loaded_bytes <= 20_000 < sum(parameter.nbytes for parameter in model.parameters())
    assert not list(tmp_path.glob("offload/*"))  # read from the original files


def test_model_is_freed_after_its_forward_pass(encoder: Encoder, tuned: Path):
    encode(encoder, tuned)
    before = sum(type(candidate) is LlamaModel for candidate in gc.get_objects())
    encode(encoder, tuned)
    assert sum(type(candidate) is LlamaModel for candidate in gc.get_objects()) == before


def test_model_with_a_larger_vocabulary_is_encoded(encoder: Encoder, base: Path, tmp_path: Path):
    model = load(base)
    add_noise(model, seed=7, scale=0.05)
    grow_vocabulary(model)
    model.save_pretrained(tmp_path)
    assert relative_error(encode(encoder, tmp_path), reference(base, load(tmp_path))) <= 1e-4


def test_model_with_a_longer_context_is_encoded(encoder: Encoder, base: Path, tmp_path: Path):
    scaled = save_tuned(base, tmp_path, rope_scaling={"rope_type": "linear", "factor": 4.0}, rope_theta=50_000.0)
    set_config(scaled, max_position_embeddings=1024)
    assert relative_error(encode(encoder, scaled), reference(base, load(scaled))) <= 1e-4


def test_half_precision_weights_are_computed_in_the_dtype_of_the_base(encoder: Encoder, base: Path, tmp_path: Path):
    load(save_tuned(base, tmp_path / "whole")).half().save_pretrained(tmp_path / "half")
    assert relative_error(encode(encoder, tmp_path / "half"), reference(base, load(tmp_path / "half"))) <= 1e-4


def test_adapter_config_next_to_a_full_model_is_ignored(encoder: Encoder, tuned: Path):
    expected = encode(encoder, tuned)
    (tuned / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/elsewhere", "peft_type": "LORA"}')
    np.testing.assert_array_equal(encode(encoder, tuned), expected)


def test_unsafe_settings_are_ignored(encoder: Encoder, tuned: Path):
    expected = encode(encoder, tuned)
    set_config(
        tuned,
        attn_implementation="owner/kernel",
        _attn_implementation="owner/kernel",
        experts_implementation="owner/kernel",
        custom_pipelines={"text": {"impl": "code.Pipeline"}},
        transformers_weights="elsewhere.safetensors",
        fusion_config={"no_such_fusion": True},
        quantization_config={},
    )
    np.testing.assert_array_equal(encode(encoder, tuned), expected)


# rejected models


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"quantization_config": {"quant_method": "bitnet"}}, QuantizedWeights),
        ({"auto_map": {"AutoModel": "code.Model"}}, RemoteCode),
        ({"auto_map": {"AutoModel": "code.LlamaEncoderModel"}}, RemoteCode),
        ({"auto_map": "code.Model", "model_type": "no_such_model"}, RemoteCode),
        ({"trust_remote_code": True, "model_type": "no_such_model"}, RemoteCode),
        ({"model_type": "no_such_model"}, InvalidModelConfig),
        ({"model_type": None}, InvalidModelConfig),
        ({"model_type": "mistral"}, ShapeMismatch),
        ({"num_hidden_layers": 1}, ShapeMismatch),
        ({"num_attention_heads": 2}, ShapeMismatch),
        ({"num_hidden_layers": 10**9}, InvalidModelConfig),
        ({"num_hidden_layers": "two"}, InvalidModelConfig),
        ({"hidden_size": 10**7}, InvalidModelConfig),
        ({"vocab_size": 10**12}, InvalidModelConfig),
        ({"vocab_size": 300}, InvalidModelConfig),
        ({"vocab_size": 64}, ShapeMismatch),
        ({"hidden_act": "no_such_function"}, InvalidModelConfig),
    ],
)
def test_false_config_is_rejected(encoder: Encoder, tuned: Path, settings: dict[str, object], error: type):
    set_config(tuned, **settings)
    with pytest.raises(error):
        encode(encoder, tuned)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"), InvalidModelConfig),
        (lambda tensors: tensors.update({"model.norm.weight": torch.ones(31)}), InvalidModelConfig),
        (lambda tensors: tensors["model.layers.1.mlp.up_proj.weight"][3].fill_(float("nan")), NonFiniteWeights),
        (lambda tensors: tensors["model.norm.weight"][3].fill_(float("inf")), NonFiniteWeights),
        (lambda tensors: tensors.update({"model.x.weight": torch.ones(2, dtype=torch.int32)}), QuantizedWeights),
    ],
)
def test_weights_that_do_not_fit_are_rejected(encoder: Encoder, tuned: Path, change: Callable, error: type):
    with pytest.raises(error):
        encode(encoder, change_tensors(tuned, change))


@pytest.mark.parametrize("architecture", ["mistral", "gpt2"])
def test_model_of_another_architecture_does_not_fit(encoder: Encoder, tmp_path: Path, architecture: str):
    with pytest.raises(ShapeMismatch, match=architecture):
        encode(encoder, make_base(tmp_path, architecture))


def test_model_of_another_width_does_not_fit(encoder: Encoder, tmp_path: Path):
    make, _ = ARCHITECTURES["llama"]
    config = make(vocab_size=258, hidden_size=16, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
    model: PreTrainedModel = LlamaModel(config)
    model.save_pretrained(tmp_path)
    with pytest.raises(ShapeMismatch, match="hidden_size is 32 in the base and 16"):
        encode(encoder, tmp_path)


# the index of shards is untrusted


def change_index(folder: Path, change: Callable[[dict], object]) -> Path:
    path = folder / "model.safetensors.index.json"
    content = json.loads(path.read_text())
    change(content["weight_map"])
    path.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda weight_map: weight_map.update({"model.norm.weight": "../../model.safetensors"}), "does not hold"),
        (
            lambda weight_map: weight_map.update({"model.norm.weight": "model-00009-of-00009.safetensors"}),
            "does not hold",
        ),
        (lambda weight_map: weight_map.clear(), "no weight_map"),
        (lambda weight_map: weight_map.update({"model.norm.weight": 3}), "no weight_map"),
    ],
)
def test_false_index_is_corrupt(base: Path, tmp_path: Path, change: Callable, match: str):
    folder = save_tuned(base, tmp_path, shard="20KB")
    with pytest.raises(CorruptWeights, match=match):
        read_finetune(change_index(folder, change))


@pytest.mark.parametrize("content", ["[]", "{", '{"weight_map": []}', "[" * 100_000])
def test_malformed_index_is_corrupt(base: Path, tmp_path: Path, content: str):
    folder = save_tuned(base, tmp_path, shard="20KB")
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CorruptWeights):
        read_finetune(folder)


def test_shards_without_an_index_are_corrupt(base: Path, tmp_path: Path):
    folder = save_tuned(base, tmp_path, shard="20KB")
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(CorruptWeights, match="has shards but no"):
        read_finetune(folder)


def test_missing_shard_is_corrupt(base: Path, tmp_path: Path):
    folder = save_tuned(base, tmp_path, shard="20KB")
    sorted(folder.glob("model-*.safetensors"))[2].unlink()
    with pytest.raises(CorruptWeights, match="does not hold"):
        read_finetune(folder)


def test_truncated_shard_is_corrupt(base: Path, tmp_path: Path):
    shard = sorted(save_tuned(base, tmp_path, shard="20KB").glob("model-*.safetensors"))[2]
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(CorruptWeights, match="truncated"):
        read_finetune(tmp_path)


def test_shard_over_the_size_limit_is_too_large(base: Path, tmp_path: Path):
    folder = save_tuned(base, tmp_path, shard="20KB")
    with pytest.raises(FileTooLarge):
        read_finetune(folder, max_file_bytes=10_000)


# bases are untrusted too


@pytest.mark.parametrize(
    "settings",
    [
        {"num_hidden_layers": 10**9},
        {"hidden_size": 10**7, "intermediate_size": 10**7},
        {"vocab_size": 10**12},
        {"quantization_config": {"quant_method": "awq"}},
        {"model_type": "no_such_model"},
    ],
)
def test_base_with_a_false_config_is_unsupported(base: Path, tmp_path: Path, settings: dict[str, object]):
    shutil.copytree(base, tmp_path / "base")
    set_config(tmp_path / "base", **settings)
    with pytest.raises(UnsupportedBase):
        ResidentBase.load(tmp_path / "base", "pico/llama", "0")


def test_base_without_a_tokenizer_is_unsupported_with_what_to_do(base: Path, tmp_path: Path):
    shutil.copytree(base, tmp_path / "base", ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(UnsupportedBase, match=r"has no tokenizer file; add what .* writes"):
        ResidentBase.load(tmp_path / "base", "pico/llama", "0")
