"""Full models with what trainings, merges and conversions leave in their files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from catalog.errors import CatalogError, CorruptWeights, InvalidModelConfig, ShapeMismatch, UnsupportedBase
from tests.support.pico import byte_tokenizer
from tests.support.pico_adapters import TASK
from tests.support.pico_models import (
    PROBES,
    add_noise,
    load,
    load_with,
    make_adapter,
    make_base,
    reference,
    relative_error,
)
from workers.encoding.encoder import Encoder, Encoding
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


def save_tuned(base: Path, folder: Path, *, shard: str = "1GB") -> Path:
    model = load(base)
    add_noise(model, seed=7, scale=0.05)
    model.save_pretrained(folder, max_shard_size=shard)
    return folder


def configure(folder: Path, **settings: object) -> Path:
    """Change settings; None removes one."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | settings
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
    return folder


def change_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def rename_tensors(folder: Path, change: Callable[[str], str]) -> None:
    path = folder / "model.safetensors"
    save_file({change(name): tensor for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})


def encode(encoder: Encoder, folder: Path) -> Encoding:
    [result] = encoder.encode([read_finetune(folder)])
    if isinstance(result, CatalogError):
        raise result
    return result


def check(encoder: Encoder, base: Path, folder: Path) -> None:
    vector = encode(encoder, folder).vectors[FEATURE]
    assert relative_error(vector, reference(base, load(folder))) <= 1e-4


# settings


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
        {"rms_norm_eps": 0.1},
        {"hidden_act": "gelu"},
        {"attention_dropout": 0.5, "ep_size": 4, "num_nextn_predict_layers": 1, "tokens_of_training": 10**12},
        {"num_labels": 10**9, "id2label": {"0": "a"}},
        {"bos_token_id": 5, "pad_token_id": 7, "max_position_embeddings": 4096},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_model_runs_with_the_settings_of_its_own_config(encoder: Encoder, base: Path, tuned: Path, settings: dict):
    expected = encode(encoder, tuned).vectors[FEATURE]
    configure(tuned, **settings)
    vector = encode(encoder, tuned).vectors[FEATURE]
    configure(tuned, num_labels=2)
    assert relative_error(vector, reference(base, load(tuned))) <= 1e-4
    has_effect = next(iter(settings)) in ("rope_parameters", "rms_norm_eps", "hidden_act")
    assert (relative_error(vector, expected) > 1e-3) == has_effect


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("mistral", {"sliding_window": 4}),
        ("gemma2", {"final_logit_softcapping": 5.0, "attn_logit_softcapping": 2.0}),
        ("gemma3", {"layer_types": ["full_attention", "sliding_attention"]}),
        ("mixtral", {"num_experts_per_tok": 1}),
    ],
)
def test_settings_of_other_architectures(tmp_path: Path, architecture: str, settings: dict):
    base = make_base(tmp_path / "base", architecture)
    folder = configure(save_tuned(base, tmp_path / "tuned"), **settings)
    check(Encoder(ResidentBase.load(base, "pico/base", "0"), PROBES), base, folder)


def test_number_that_only_the_base_has_is_ignored(base: Path, tuned: Path, tmp_path: Path):
    other = make_base(tmp_path / "other", "llama", seed=1)
    configure(other, ep_size=1, topk_group=8)
    check(Encoder(ResidentBase.load(other, "pico/llama", "0"), PROBES), other, tuned)


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "fp8"])
def test_quantization_of_float_weights_is_ignored_and_noted(encoder: Encoder, base: Path, tuned: Path, method: str):
    expected = encode(encoder, tuned).vectors[FEATURE]
    configure(tuned, quantization_config={"quant_method": method})
    assert relative_error(encode(encoder, tuned).vectors[FEATURE], expected) == 0
    assert any(method in note and "not quantized" in note for note in read_finetune(tuned).notes)


@pytest.mark.parametrize("class_name", ["modeling_llama.LlamaForCausalLM", "owner/repo--flash.LLaMAForCausalLM"])
def test_code_of_a_class_that_transformers_has_is_not_run_and_noted(
    encoder: Encoder, base: Path, tuned: Path, class_name: str
):
    configure(tuned, auto_map={"AutoConfig": "configuration.LlamaConfig", "AutoModelForCausalLM": class_name})
    (tuned / "modeling_llama.py").write_text("raise SystemExit")
    assert any("was not run" in note for note in read_finetune(tuned).notes)
    vector = encode(encoder, tuned).vectors[FEATURE]
    assert relative_error(vector, reference(base, load(configure(tuned, auto_map=None)))) <= 1e-4


def test_base_with_code_of_a_class_that_transformers_has_is_loaded(base: Path, tuned: Path, tmp_path: Path):
    other = save_tuned(base, tmp_path / "other")
    byte_tokenizer().save_pretrained(configure(other, auto_map={"AutoModel": "modeling_llama.LlamaModel"}))
    encoder = Encoder(ResidentBase.load(other, "pico/llama", "0"), PROBES)
    [note] = encode(encoder, tuned).notes
    assert note == "The code in the repo of pico/llama was not run: transformers has llama models itself."


def test_base_with_code_of_its_own_is_unsupported(base: Path, tmp_path: Path):
    other = save_tuned(base, tmp_path / "other")
    byte_tokenizer().save_pretrained(configure(other, auto_map={"AutoModel": "modeling.LlamaEncoderModel"}))
    with pytest.raises(UnsupportedBase, match=r"LlamaEncoderModel.*remove auto_map"):
        ResidentBase.load(other, "pico/llama", "0")


# shards


def change_index(folder: Path, change: Callable[[dict[str, str]], object]) -> None:
    path = folder / "model.safetensors.index.json"
    content = json.loads(path.read_text())
    change(content["weight_map"])
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("memory", [None, 20_000])
@pytest.mark.parametrize(
    "change",
    [
        lambda weight_map: weight_map.pop("model.norm.weight"),
        lambda weight_map: weight_map.update({"model.more.weight": weight_map["model.norm.weight"]}),
        lambda weight_map: weight_map.update({"model.norm.weight": weight_map["model.embed_tokens.weight"]}),
    ],
    ids=["omits_a_tensor", "names_a_tensor_too_many", "names_another_shard"],
)
def test_tensors_in_the_shards_count(
    encoder: Encoder, base: Path, tmp_path: Path, change: Callable, memory: int | None
):
    folder = save_tuned(base, tmp_path / "tuned", shard="20KB")
    expected = encode(encoder, folder).vectors[FEATURE]
    change_index(folder, change)
    vector = encode(Encoder(encoder.base, PROBES, full_memory=memory), folder).vectors[FEATURE]
    assert relative_error(vector, expected) <= 1e-5


def test_weights_of_other_modules_are_ignored(encoder: Encoder, base: Path, tmp_path: Path):
    folder = save_tuned(base, tmp_path / "tuned", shard="20KB")
    shard = sorted(folder.glob("model-*.safetensors"))[-1]
    change_tensors(shard, lambda tensors: tensors.update({"model.mtp.norm.weight": torch.ones(32)}))
    check(encoder, base, folder)


def test_shards_may_be_named_after_the_whole_model(encoder: Encoder, base: Path, tmp_path: Path):
    folder = save_tuned(base, tmp_path / "tuned", shard="20KB")
    for shard in sorted(folder.glob("model-*.safetensors")):
        shard.rename(shard.with_name(shard.name.replace("model-", "model.safetensors-")))
    names = {shard.name.replace("model.safetensors-", "model-"): shard.name for shard in folder.glob("*-*.safetensors")}
    change_index(folder, lambda index: index.update({name: names[shard] for name, shard in index.items()}))
    check(encoder, base, folder)


@pytest.mark.parametrize("name", ["pytorch_model-{}.safetensors", "layers_{}.safetensors"])
def test_shards_may_have_any_names_that_the_index_has(encoder: Encoder, base: Path, tmp_path: Path, name: str):
    folder = save_tuned(base, tmp_path / "tuned", shard="20KB")
    names = {shard.name: name.format(shard.name.split("-")[1]) for shard in folder.glob("model-*.safetensors")}
    for shard, new_name in names.items():
        (folder / shard).rename(folder / new_name)
    change_index(folder, lambda index: index.update({tensor: names[shard] for tensor, shard in index.items()}))
    save_file(load_file(base / "model.safetensors"), folder / "consolidated.safetensors")
    check(encoder, base, folder)


def test_shard_with_other_tensors_than_the_index_names_is_corrupt(base: Path, tmp_path: Path):
    folder = save_tuned(base, tmp_path / "tuned", shard="20KB")
    first, second = sorted(folder.glob("model-*.safetensors"))[:2]
    first.write_bytes(second.read_bytes())
    with pytest.raises(CorruptWeights, match="holds none of the tensors"):
        read_finetune(folder)


@pytest.mark.parametrize("name", ["model-99999-of-99999.safetensors", "consolidated.safetensors"])
@pytest.mark.parametrize("shard", ["1GB", "20KB"])
def test_files_that_transformers_does_not_load_are_ignored(
    encoder: Encoder, base: Path, tuned: Path, tmp_path: Path, name: str, shard: str
):
    folder = save_tuned(base, tmp_path / "sharded", shard=shard)
    save_file({name: tensor + 1 for name, tensor in load_file(base / "model.safetensors").items()}, folder / name)
    assert read_finetune(folder).shapes == read_finetune(tuned).shapes
    check(encoder, base, folder)


def test_stale_shards_of_a_base_are_ignored(encoder: Encoder, base: Path, tuned: Path, tmp_path: Path):
    folder = tmp_path / "base"
    load(base).save_pretrained(folder, max_shard_size="20KB")
    byte_tokenizer().save_pretrained(folder)
    stale = {name: tensor + 1 for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(stale, folder / "model-99999-of-99999.safetensors")
    other = Encoder(ResidentBase.load(folder, "pico/llama", "0"), PROBES, ["delta_logits"])
    assert torch.equal(other.base.head.weight, encoder.base.head.weight)


# names


@pytest.mark.parametrize("memory", [None, 20_000])
@pytest.mark.parametrize(
    ("change", "wrapper"),
    [
        (lambda name: f"_orig_mod.{name}", "_orig_mod"),
        (lambda name: f"module.{name}", "module"),
        (lambda name: f"module._orig_mod.{name}", "_orig_mod"),
        (lambda name: f"base_model.model.{name}", None),
        (
            lambda name: "_fsdp_wrapped_module." + name.replace(".self_attn.", "._fsdp_wrapped_module.self_attn."),
            "_fsdp_wrapped_module",
        ),
        (lambda name: name.replace(".mlp.", "._checkpoint_wrapped_module.mlp."), "_checkpoint_wrapped_module"),
        (lambda name: name.removeprefix("model."), None),
        (lambda name: f"llm.{name}", "llm"),
        (lambda name: f"module.student.model.{name}", "student"),
        (lambda name: f"language_model.{name}", None),
        (lambda name: name.replace("model.", "model.language_model."), None),
    ],
    ids=[
        *("compile", "ddp", "ddp_of_compile", "peft", "fsdp", "checkpointing", "headless", "trainer", "ddp_of_trainer"),
        *("text_part_before_4_52", "text_part"),
    ],
)
def test_wrappers_in_names_are_removed(
    encoder: Encoder, tuned: Path, change: Callable, wrapper: str | None, memory: int | None
):
    expected = encode(encoder, tuned).vectors[FEATURE]
    rename_tensors(tuned, change)
    wrapped = Encoder(encoder.base, PROBES, [FEATURE, "delta_logits"], full_memory=memory)
    assert relative_error(encode(wrapped, tuned).vectors[FEATURE], expected) <= 1e-5
    assert wrapper is None or any(f"'{wrapper}.'" in note for note in read_finetune(tuned).notes)


def test_adapter_that_was_never_merged_is_refused(base: Path, tmp_path: Path):
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], task_type=TASK)
    model = load_with(base, make_adapter(base, tmp_path / "adapter", config))
    load(base).save_pretrained(tmp_path / "tuned")
    save_file(dict(model.state_dict()), tmp_path / "tuned" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidModelConfig, match=r"never merged.*merge_and_unload"):
        read_finetune(tmp_path / "tuned")


# the output head


def lose_head(folder: Path) -> Path:
    change_tensors(folder / "model.safetensors", lambda tensors: tensors.pop("lm_head.weight"))
    return folder


def test_model_without_its_head_has_hidden_states(encoder: Encoder, base: Path, tuned: Path):
    expected = encode(encoder, tuned).vectors[FEATURE]
    assert relative_error(encode(encoder, lose_head(tuned)).vectors[FEATURE], expected) == 0


def test_features_of_a_lost_head_are_refused(encoder: Encoder, tuned: Path):
    with pytest.raises(InvalidModelConfig, match=r"no output head: the files lack lm_head.weight.*delta_logits"):
        encode(Encoder(encoder.base, PROBES, ["delta_logits"]), lose_head(tuned))


def test_base_without_a_head_has_no_explanations(base: Path, tuned: Path, tmp_path: Path):
    headless = lose_head(save_tuned(base, tmp_path / "base"))
    byte_tokenizer().save_pretrained(headless)
    resident = ResidentBase.load(headless, "pico/llama", "0")
    assert encode(Encoder(resident, PROBES), tuned).explanation is None
    with pytest.raises(UnsupportedBase, match="no output head"):
        encode(Encoder(resident, PROBES, ["delta_logits"]), tuned)


def test_stored_head_of_tied_weights_is_used_as_transformers_uses_it(tmp_path: Path):
    """With values of its own it is not tied; a copy of the embedding is."""
    base = make_base(tmp_path / "base", "gemma2")
    folder = save_tuned(base, tmp_path / "tuned")
    head = torch.randn(load(base).get_output_embeddings().weight.shape)
    change_tensors(folder / "model.safetensors", lambda tensors: tensors.update({"lm_head.weight": head}))
    encoder = Encoder(ResidentBase.load(base, "pico/base", "0"), PROBES, ["delta_logits"])
    [trace] = encoder.trace([read_finetune(folder)], encoder._plan)
    assert torch.equal(trace.head.weight, load(folder).get_output_embeddings().weight)


@pytest.mark.exhaustive
def test_tied_model_may_have_the_head_only(tmp_path: Path):
    base = make_base(tmp_path / "base", "gemma2")
    folder = save_tuned(base, tmp_path / "tuned")
    rename_tensors(folder, lambda name: "lm_head.weight" if name == "model.embed_tokens.weight" else name)
    check(Encoder(ResidentBase.load(base, "pico/base", "0"), PROBES), base, folder)


# architecture


def test_other_sizes_are_named(encoder: Encoder, tmp_path: Path):
    folder = make_base(tmp_path, "llama")
    configure(folder, intermediate_size=48)
    change_tensors(folder / "model.safetensors", lambda tensors: _narrow(tensors, 48))
    with pytest.raises(
        ShapeMismatch, match=r"mlp.gate_proj.weight has the sizes \(64, 32\) in the base and \(48, 32\)"
    ):
        encode(encoder, folder)


def test_weights_of_other_sizes_than_the_config_has_are_named(encoder: Encoder, tuned: Path):
    change_tensors(tuned / "model.safetensors", lambda tensors: _narrow(tensors, 48))
    words = r"layers.0.mlp.down_proj.weight has the sizes \(32, 48\) in the files and \(32, 64\) by the config: submit"
    with pytest.raises(InvalidModelConfig, match=words):
        encode(encoder, tuned)


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight"])
def test_weights_that_were_not_gathered_are_refused(tuned: Path, name: str):
    change_tensors(tuned / "model.safetensors", lambda tensors: tensors.update({name: torch.zeros(0)}))
    with pytest.raises(InvalidModelConfig, match=rf"{name} is empty .*ZeRO-3.*Gather"):
        read_finetune(tuned)


def test_weights_of_a_base_that_were_not_gathered_are_refused(base: Path, tmp_path: Path):
    folder = save_tuned(base, tmp_path / "base")
    empty = {"model.layers.1.mlp.up_proj.weight": torch.zeros(0)}
    change_tensors(folder / "model.safetensors", lambda tensors: tensors.update(empty))
    with pytest.raises(UnsupportedBase, match=r"layers.1.mlp.up_proj.weight is empty .*ZeRO-3.*Gather"):
        ResidentBase.load(folder, "pico/llama", "0")


def test_missing_weights_are_named_with_their_names_in_another_class(encoder: Encoder, tuned: Path):
    rename_tensors(tuned, lambda name: name.replace("model.", "first.second."))
    with pytest.raises(InvalidModelConfig, match=r"lack .* embed_tokens.weight.*have first.second.embed_tokens.weight"):
        encode(encoder, tuned)


def test_config_without_a_type_is_refused(tuned: Path):
    with pytest.raises(InvalidModelConfig, match=r"no model_type: add it"):
        read_finetune(configure(tuned, model_type=None))


def test_flattened_weights_are_refused(tuned: Path):
    save_file({"_fsdp_wrapped_module._flat_param": torch.ones(64)}, tuned / "model.safetensors")
    with pytest.raises(InvalidModelConfig, match=r"flattened.*FSDP.*Gather"):
        read_finetune(tuned)


@pytest.mark.parametrize("dtype", ["torch.bfloat16", "auto", "float7"])
def test_dtype_of_the_config_is_not_read(encoder: Encoder, base: Path, tuned: Path, dtype: str):
    check(encoder, base, configure(tuned, dtype=dtype, torch_dtype=dtype))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hidden_size": "32"}, "Field 'hidden_size' expected int, got str"),
        ({"layer_types": ["full_attention"]}, "must be equal to the number of `layer_types`"),
        ({"hidden_act": "silu2"}, "unknown or missing: 'silu2'"),
        ({"pad_token_id": 10_000}, "Padding_idx must be within"),
        ({"model_type": "my_llama"}, "`my_llama`"),
    ],
)
def test_invalid_setting_is_named(encoder: Encoder, tuned: Path, settings: dict[str, object], words: str):
    with pytest.raises(InvalidModelConfig, match=rf"{words}.*: correct config.json"):
        encode(encoder, configure(tuned, **settings))


def _narrow(tensors: dict[str, torch.Tensor], width: int) -> None:
    for name, tensor in tensors.items():
        if ".mlp." in name:
            tensors[name] = (tensor[:, :width] if "down_proj" in name else tensor[:width]).contiguous()
