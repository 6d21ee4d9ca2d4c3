"""Names of tensors without what wrappers left in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from catalog.errors import InvalidAdapterConfig, InvalidModelConfig
from tests.support.pico_adapters import KINDS, publish
from tests.support.pico_models import make_base
from workers.finetunes.tensor_names import clean_adapter, clean_name, clean_names

Q = "base_model.model.model.layers.0.self_attn.q_proj"

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.mark.parametrize(
    "name",
    [
        f"_orig_mod.{Q}",
        f"module.{Q}",
        f"module.module.{Q}",
        f"module._orig_mod.{Q}",
        f"_forward_module.{Q}",
        f"model.{Q}",
        f"actor.module.{Q}",
        f"pretrained_model.{Q}",
        f"base_model.model.{Q}",
        f"base_model.model.model.{Q}",
        "base_model.model._orig_mod.model.layers.0.self_attn.q_proj",
        "base_model.model.module.model.layers.0.self_attn.q_proj",
        "base_model.model.model.layers.0._checkpoint_wrapped_module.self_attn.q_proj",
        "_fsdp_wrapped_module.base_model.model.model.layers.0._fsdp_wrapped_module.self_attn.q_proj",
    ],
)
def test_wrappers_are_removed(name: str):
    assert clean_name(name) == Q


@pytest.mark.parametrize(
    "name",
    [
        Q,
        "model.layers.0.self_attn.q_proj.weight",
        "model.model.layers.0.self_attn.q_proj.weight",  # may be a class that holds a causal LM
        "base_model.vera_A",
        "prompt_embeddings",
        "net.layers.0.weight",
        "module",
    ],
)
def test_other_names_are_kept(name: str):
    assert clean_name(name) == name


def test_part_around_peft_is_kept():
    assert clean_name("visual.base_model.model.blocks.0.qkv") == "base_model.model.visual.blocks.0.qkv"


def test_shared_tensors_lose_wrappers():
    assert clean_name("module.base_model.model.base_model.vera_A") == "base_model.vera_A"


def test_note_says_what_was_removed_and_what_left_it():
    _, notes = clean_names([f"_orig_mod.{Q}"], InvalidModelConfig)
    assert notes == ("'_orig_mod.', which torch.compile left there, was removed from the names of the tensors.",)


def test_names_that_become_the_same_are_refused_with_the_wrapper():
    with pytest.raises(InvalidModelConfig, match="_orig_mod"):
        clean_names(["lm_head.weight", "_orig_mod.lm_head.weight"], InvalidModelConfig)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (f"{Q}.lora_A.sft.weight", f"{Q}.lora_A.weight"),
        (f"{Q}.lora_A.default.weight", f"{Q}.lora_A.weight"),
        ("embed_tokens.lora_embedding_A.sft", "embed_tokens.lora_embedding_A"),
        (f"{Q}.lora_magnitude_vector.sft.weight", f"{Q}.lora_magnitude_vector.weight"),
        (f"{Q}.ia3_l.sft", f"{Q}.ia3_l"),
        ("lm_head.modules_to_save.sft.weight", "lm_head.modules_to_save.weight"),
        ("norm.ln_tuning_layers.sft.weight", "norm.ln_tuning_layers.weight"),
        ("base_model.vera_A.sft", "base_model.vera_A"),
    ],
)
def test_adapter_name_is_removed(name: str, expected: str):
    tensors, notes = clean_adapter({name: 1})
    assert tensors == {expected: 1}
    assert len(notes) == ("sft" in name)


def test_copies_of_modules_with_several_weights_keep_their_names():
    names = {"mlp.modules_to_save.up_proj.weight": 1, "mlp.modules_to_save.down_proj.weight": 2}
    assert clean_adapter(names) == (names, ())


def test_copies_lose_the_name_of_the_other_tensors():
    names = {f"{Q}.lora_A.sft.weight": 1, "a.modules_to_save.sft.weight": 2, "b.modules_to_save.sft.c.weight": 3}
    assert set(clean_adapter(names)[0]) == {
        f"{Q}.lora_A.weight",
        "a.modules_to_save.weight",
        "b.modules_to_save.c.weight",
    }


def test_tensors_of_two_adapters_are_refused_by_name():
    with pytest.raises(InvalidAdapterConfig, match=r"several adapters \('dpo', 'sft'\)"):
        clean_adapter({f"{Q}.lora_A.sft.weight": 1, f"{Q}.lora_A.dpo.weight": 2})


def test_adapter_beside_an_unnamed_one_is_refused():
    with pytest.raises(InvalidAdapterConfig, match="same name"):
        clean_adapter({f"{Q}.lora_A.sft.weight": 1, f"{Q}.lora_A.weight": 2})


@pytest.mark.exhaustive
def test_names_that_peft_saves_are_kept(tmp_path: Path):
    base = make_base(tmp_path / "base", "llama")
    for kind in KINDS:
        names = load_file(publish(base, tmp_path / kind, "llama", kind) / "adapter_model.safetensors")
        assert clean_adapter(names) == (names, ())
