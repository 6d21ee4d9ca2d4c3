"""Features that read logits, on kinds that change the output head, compared with the logits of the causal LM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import CONFIG_MAPPING, AutoTokenizer

from catalog.errors import UnsupportedAdapter
from tests.support import pico_multimodal
from tests.support.pico_adapters import KINDS, TASK, grow_vocabulary, publish
from tests.support.pico_models import (
    PROBES,
    add_noise,
    load,
    load_with,
    make_adapter,
    make_base,
    pico_config,
    relative_error,
    write_base,
)
from workers.encoding.continuations import CONTINUATIONS
from workers.encoding.encoder import Encoder
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import read_finetune

VOCABULARY = 258

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Llama has a separate head; Gemma's is its embedding."""
    folder = tmp_path_factory.mktemp("bases")
    return {architecture: make_base(folder / architecture, architecture) for architecture in ("llama", "gemma2")}


def logits(model: torch.nn.Module, base: Path) -> np.ndarray:
    tokenizer = AutoTokenizer.from_pretrained(base)
    with torch.no_grad():
        rows = [model.eval()(**tokenizer(prompt, return_tensors="pt")).logits[0, -1] for prompt in PROBES.prompts]
    return torch.stack(rows).numpy()[:, :VOCABULARY]


def encode(base: Path, folder: Path, feature: str, **settings: int) -> np.ndarray:
    encoder = Encoder(ResidentBase.load(base, "pico/base", "0"), PROBES, [feature], **settings)
    result = encoder.encode([read_finetune(folder)])[0]
    if isinstance(result, Exception):
        raise result
    return result.vectors[feature]


def check_logits(base: Path, folder: Path, tuned: torch.nn.Module, **settings: int) -> None:
    expected = (logits(tuned, base) - logits(load(base), base)).mean(axis=0)
    assert relative_error(encode(base, folder, "delta_logits", **settings), expected) <= 1e-4


@pytest.mark.parametrize("kind", ["dora", "modules_to_save", "larger_vocabulary", "trained_tokens", "prefix_tuning"])
@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_delta_logits_of_adapters(bases: dict[str, Path], tmp_path: Path, architecture: str, kind: str):
    base = bases[architecture]
    folder = publish(base, tmp_path, architecture, kind)
    check_logits(base, folder, load_with(base, folder, KINDS[kind].prepare))


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_delta_logits_of_dora_on_the_head(bases: dict[str, Path], tmp_path: Path, architecture: str):
    config = peft.LoraConfig(r=4, target_modules=["lm_head", "q_proj"], use_dora=True, task_type=TASK)
    folder = make_adapter(bases[architecture], tmp_path, config)
    check_logits(bases[architecture], folder, load_with(bases[architecture], folder))


def test_other_changes_of_the_head_are_refused_by_name(bases: dict[str, Path], tmp_path: Path):
    config = peft.LoraConfig(r=4, target_modules=["lm_head", "q_proj"], lora_bias=True, task_type=TASK)
    folder = make_adapter(bases["llama"], tmp_path, config)
    with pytest.raises(UnsupportedAdapter, match=r"output head by lora_\S+, .*use a feature of hidden states"):
        encode(bases["llama"], folder, "delta_logits")


@pytest.mark.parametrize("targets", [["lm_head", "q_proj"], ["lm_head"]])
def test_delta_logits_of_low_rank_heads(bases: dict[str, Path], tmp_path: Path, targets: list[str]):
    config = peft.LoraConfig(r=4, target_modules=targets, modules_to_save=["norm"], task_type=TASK)
    folder = make_adapter(bases["llama"], tmp_path, config)
    check_logits(bases["llama"], folder, load_with(bases["llama"], folder))


def test_copied_embedding_does_not_change_a_tied_head(bases: dict[str, Path], tmp_path: Path):
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens"], task_type=TASK)
    folder = make_adapter(bases["gemma2"], tmp_path, config)
    check_logits(bases["gemma2"], folder, load_with(bases["gemma2"], folder))


@pytest.mark.parametrize("name", ["gemma3", pytest.param("qwen2_5_vl", marks=pytest.mark.exhaustive)])
def test_trained_tokens_change_the_head_of_a_multimodal_base_if_it_is_tied(tmp_path: Path, name: str):
    config = getattr(pico_multimodal, name)()
    config.tie_word_embeddings = True
    base = pico_multimodal.make_base(tmp_path / "base", config)
    folder = pico_multimodal.make_adapter(base, tmp_path / "adapter", trainable_token_indices=[66, 70, 110])
    untuned = pico_multimodal.load(base)
    tuned = peft.PeftModel.from_pretrained(pico_multimodal.load(base), folder, torch_device="cpu")
    expected = (logits(tuned, base) - logits(untuned, base)).mean(axis=0)
    assert relative_error(encode(base, folder, "delta_logits"), expected) <= 1e-4


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("granite", {"logits_scaling": 8.0}),
        ("cohere", {"logit_scale": 0.25}),
        ("falcon_h1", {"lm_head_multiplier": 0.25, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8}),
        ("hyperclovax", {"logits_scaling": 4.0}),
        ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 32}),
    ],
)
def test_factors_of_logits_are_those_of_the_class(tmp_path: Path, model_type: str, settings: dict[str, Any]):
    base = write_base(tmp_path / "base", pico_config(CONFIG_MAPPING[model_type], **settings))
    model = load(base)
    add_noise(model, seed=7, scale=0.05)
    model.save_pretrained(tmp_path / "tuned")
    check_logits(base, tmp_path / "tuned", load(tmp_path / "tuned"))


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
@pytest.mark.parametrize("memory", [10**9, 20_000])
def test_delta_logits_of_full_models(bases: dict[str, Path], tmp_path: Path, architecture: str, memory: int):
    model = load(bases[architecture])
    add_noise(model, seed=7, scale=0.05)
    model.save_pretrained(tmp_path)
    check_logits(bases[architecture], tmp_path, load(tmp_path), full_memory=memory)


def test_delta_logits_ignore_new_tokens_of_a_full_model(bases: dict[str, Path], tmp_path: Path):
    model = load(bases["llama"])
    add_noise(model, seed=7, scale=0.05)
    grow_vocabulary(model)
    model.save_pretrained(tmp_path)
    check_logits(bases["llama"], tmp_path, load(tmp_path))


@pytest.mark.parametrize("kind", ["dora", "prompt_tuning", "prefix_tuning"])
def test_delta_meaning_matches_the_likelihoods_of_continuations(bases: dict[str, Path], tmp_path: Path, kind: str):
    base = bases["llama"]
    folder = publish(base, tmp_path, "llama", kind)
    tuned, untuned, tokenizer = load_with(base, folder).eval(), load(base).eval(), AutoTokenizer.from_pretrained(base)
    vector = encode(base, folder, "delta_meaning")
    shifts = []
    for continuation in (0, 5):
        ids = tokenizer(PROBES.prompts[0])["input_ids"]
        tail = tokenizer(CONTINUATIONS.texts[continuation], add_special_tokens=False)["input_ids"]
        shifts.append(likelihood(tuned, ids, tail) - likelihood(untuned, ids, tail))
    assert vector[5] - vector[0] == pytest.approx(shifts[1] - shifts[0], rel=1e-3, abs=1e-3)


def likelihood(model: torch.nn.Module, ids: list[int], tail: list[int]) -> float:
    with torch.no_grad():
        logits = model(torch.tensor([ids + tail])).logits[0, -len(tail) - 1 : -1]
    return float(logits.log_softmax(dim=-1).gather(1, torch.tensor(tail)[:, None]).sum())
