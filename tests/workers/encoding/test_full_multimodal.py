"""Full models whose base is multimodal, or which are multimodal themselves, read by their text part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel

from catalog.errors import CatalogError, ShapeMismatch
from tests.support import pico_models, pico_multimodal
from tests.support.pico_models import PROBES, add_noise, last_hidden, relative_error
from tests.support.pico_multimodal import load, make_base
from workers.encoding.encoder import Encoder, Encoding
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import read_finetune

FEATURES = ("delta_activations", "delta_layers", "delta_logits")
CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "qwen2_5_vl": pico_multimodal.qwen2_5_vl,
    "gemma3": pico_multimodal.gemma3,
    "qwen2_vl": pico_multimodal.qwen2_vl,
    "qwen3_vl": pico_multimodal.qwen3_vl,
    "internvl": pico_multimodal.internvl,
    "llava": pico_multimodal.llava,
    "mllama": pico_multimodal.mllama,
}
COMMON = ("qwen2_5_vl", "gemma3")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


def encode(base: Path, folder: Path) -> Encoding:
    encoder = Encoder(ResidentBase.load(base, "pico/base", "0"), PROBES, FEATURES)
    [result] = encoder.encode([read_finetune(folder)])
    if isinstance(result, CatalogError):
        raise result
    return result


def logits(model: PreTrainedModel, base: Path) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(base)
    with torch.no_grad():
        rows = [model.eval()(**tokenizer(prompt, return_tensors="pt")).logits[0, -1] for prompt in PROBES.prompts]
    return torch.stack(rows)


def check(base: Path, folder: Path, tuned: PreTrainedModel, untuned: PreTrainedModel) -> None:
    """Compare vectors with those of the models' own forward passes."""
    vectors = encode(base, folder).vectors
    hidden = (last_hidden(tuned, base) - last_hidden(untuned, base)).mean(dim=0).numpy()
    assert relative_error(vectors["delta_activations"], hidden) <= 1e-4
    shift = (logits(tuned, base) - logits(untuned, base)).mean(dim=0).numpy()
    assert relative_error(vectors["delta_logits"], shift) <= 1e-4


def save_text_part(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Save the causal LM that has the text part of a multimodal model, changed, and return it."""
    text = AutoModelForCausalLM.from_config(model.config.get_text_config())
    text.get_decoder().load_state_dict(model.get_decoder().state_dict())
    text.get_output_embeddings().load_state_dict(model.get_output_embeddings().state_dict())
    add_noise(text, 7, scale=0.05)
    text.save_pretrained(folder)
    return text


@pytest.mark.parametrize(
    "name", [name if name in COMMON else pytest.param(name, marks=pytest.mark.exhaustive) for name in CONFIGS]
)
def test_full_model_of_a_multimodal_base(tmp_path: Path, name: str):
    base = make_base(tmp_path / "base", CONFIGS[name]())
    tuned = load(base)
    add_noise(tuned, 7, scale=0.05)
    tuned.save_pretrained(tmp_path / "tuned")
    check(base, tmp_path / "tuned", tuned, load(base))


@pytest.mark.parametrize("name", ["gemma3", pytest.param("internvl", marks=pytest.mark.exhaustive)])
def test_text_model_of_a_multimodal_base(tmp_path: Path, name: str):
    base = make_base(tmp_path / "base", CONFIGS[name]())
    tuned = save_text_part(load(base), tmp_path / "tuned")
    check(base, tmp_path / "tuned", tuned, load(base))


def test_multimodal_model_whose_other_parts_are_lost(tmp_path: Path):
    base = make_base(tmp_path / "base", pico_multimodal.gemma3())
    tuned = load(base)
    add_noise(tuned, 7, scale=0.05)
    tuned.save_pretrained(tmp_path / "tuned")
    path = tmp_path / "tuned" / "model.safetensors"
    stored = load_file(path)
    save_file({name: tensor for name, tensor in stored.items() if "vision_tower" not in name}, path)
    check(base, tmp_path / "tuned", tuned, load(base))


@pytest.mark.exhaustive
def test_text_model_of_another_type_of_a_multimodal_base(tmp_path: Path):
    """Qwen2-VL's text part is a Qwen2 model, and text-only models of it are saved as one."""
    base = make_base(tmp_path / "base", pico_multimodal.qwen2_vl())
    pico_models.make_base(tmp_path / "tuned", "qwen2", seed=3)
    tuned = pico_models.load(tmp_path / "tuned")
    hidden = (last_hidden(tuned, base) - last_hidden(load(base), base)).mean(dim=0).numpy()
    assert relative_error(encode(base, tmp_path / "tuned").vectors["delta_activations"], hidden) <= 1e-4


@pytest.mark.exhaustive
def test_multimodal_model_of_a_text_base(tmp_path: Path):
    make_base(tmp_path / "tuned", pico_multimodal.gemma3())
    untuned = save_text_part(load(tmp_path / "tuned"), tmp_path / "base")
    pico_multimodal.byte_tokenizer().save_pretrained(tmp_path / "base")
    check(tmp_path / "base", tmp_path / "tuned", load(tmp_path / "tuned"), untuned)


def test_text_model_with_other_tensors_does_not_fit(tmp_path: Path):
    base = make_base(tmp_path / "base", pico_multimodal.gemma3())
    pico_models.make_base(tmp_path / "tuned", "llama")
    with pytest.raises(
        ShapeMismatch, match=r"Only the base has .* a gemma3_text model, and the fine-tune a llama model"
    ):
        encode(base, tmp_path / "tuned")


def test_vectors_have_the_size_of_the_text_part(tmp_path: Path):
    base = make_base(tmp_path / "base", pico_multimodal.qwen2_5_vl())
    tuned = load(base)
    add_noise(tuned, 7, scale=0.05)
    tuned.save_pretrained(tmp_path / "tuned")
    vectors = encode(base, tmp_path / "tuned").vectors
    assert vectors["delta_layers"].shape == (2 * pico_models.HIDDEN,)
    assert np.isfinite(vectors["delta_layers"]).all()
