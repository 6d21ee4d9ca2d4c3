"""Names of an adapter's tensors in the layouts of several classes, and the modules of the base that they mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from catalog.errors import CatalogError, InvalidAdapterConfig, ShapeMismatch, UnsupportedAdapter
from tests.support import pico, pico_multimodal
from tests.support.pico_models import PROBES, load_with, relative_error
from tests.support.pico_models import make_base as make_text_base
from tests.support.pico_models import reference as text_reference
from tests.support.pico_multimodal import add_lora, add_weights, make_adapter, make_base, reference, rename
from workers.encoding.encoder import Encoder, Encoding
from workers.encoding.lora_path import names_in_causal_lm
from workers.encoding.resident_base import ResidentBase
from workers.finetunes.reading import read_finetune
from workers.finetunes.shape_fit import compare, weight_shapes

FEATURE = "delta_activations"
CONVOLUTION = torch.ones(4, 3, 14, 14)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("gemma3"), pico_multimodal.gemma3())


@pytest.fixture(scope="module")
def encoder(base: Path) -> Encoder:
    return Encoder(ResidentBase.load(base, "pico/base", "0"), PROBES)


@pytest.fixture(scope="module")
def expected(base: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    return reference(base, make_adapter(base, tmp_path_factory.mktemp("expected")))


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    return make_adapter(base, tmp_path / "adapter")


def encode(encoder: Encoder, adapter: Path) -> Encoding:
    [result] = encoder.encode([read_finetune(adapter)])
    assert isinstance(result, Encoding), result
    return result


def refusal(encoder: Encoder, adapter: Path) -> CatalogError:
    [result] = encoder.encode([read_finetune(adapter)])
    assert isinstance(result, CatalogError)
    return result


@pytest.mark.parametrize(
    "layout",
    ["model.", "", "language_model.model.", "language_model.", "model.model.language_model.", "model.model."],
)
def test_text_layers_have_one_meaning_in_every_layout(
    encoder: Encoder, base: Path, adapter: Path, expected: np.ndarray, layout: str
):
    rename(adapter, lambda name: name.replace("model.model.language_model.", f"model.{layout}"))
    result = encode(encoder, adapter)
    assert relative_error(result.vectors[FEATURE], expected) <= 1e-4
    assert compare(read_finetune(adapter).shapes, weight_shapes(base)).problems == ()


@pytest.mark.parametrize("layout", ["language_model.model.", "model.", ""])
def test_whole_weights_have_one_meaning_in_every_layout(encoder: Encoder, base: Path, tmp_path: Path, layout: str):
    adapter = make_adapter(base, tmp_path / "adapter", modules_to_save=["embed_tokens", "norm"])
    expected = reference(base, adapter)
    rename(adapter, lambda name: name.replace("model.model.language_model.", f"model.{layout}"))
    assert relative_error(encode(encoder, adapter).vectors[FEATURE], expected) <= 1e-4


def test_names_of_today_are_not_noted(encoder: Encoder, adapter: Path):
    assert encode(encoder, adapter).notes == ()


def test_names_of_another_class_are_noted(encoder: Encoder, adapter: Path):
    rename(adapter, lambda name: name.replace(".language_model.layers", ".layers"))
    [note] = encode(encoder, adapter).notes
    assert "model.layers.0.mlp.down_proj" in note
    assert "language_model.layers.0.mlp.down_proj" in note


@pytest.mark.parametrize(
    "part",
    [
        "model.vision_tower.embeddings.patch_embedding",
        "vision_tower.vision_model.embeddings.patch_embedding",
        "visual.patch_embed.proj",
        "audio_tower.conv1",
        "multi_modal_projector.linear_1",
    ],
)
def test_parts_for_images_and_sound_are_left_out_in_any_layout(
    encoder: Encoder, base: Path, adapter: Path, expected: np.ndarray, part: str
):
    add_lora(adapter, **{part: CONVOLUTION})
    result = encode(encoder, adapter)
    assert relative_error(result.vectors[FEATURE], expected) <= 1e-4
    assert part.removeprefix("model.").partition(".")[0] in result.notes[0]
    assert compare(read_finetune(adapter).shapes, weight_shapes(base)).problems == ()


def test_linear_layers_of_all_parts_have_the_vector_of_the_text_model(encoder: Encoder, base: Path, tmp_path: Path):
    adapter = make_adapter(base, tmp_path / "adapter", "all-linear")
    result = encode(encoder, adapter)
    assert relative_error(result.vectors[FEATURE], reference(base, adapter)) <= 1e-4
    assert "vision_tower" in result.notes[0]


def test_dora_of_all_parts_has_the_vector_of_the_text_model(encoder: Encoder, base: Path, tmp_path: Path):
    adapter = make_adapter(base, tmp_path / "adapter", "all-linear", use_dora=True)
    assert relative_error(encode(encoder, adapter).vectors[FEATURE], reference(base, adapter)) <= 1e-4


def test_dora_with_names_of_the_text_class(encoder: Encoder, base: Path, tmp_path: Path):
    adapter = make_adapter(base, tmp_path / "adapter", use_dora=True, rank_pattern={"0.*": 2})
    expected = reference(base, adapter)
    rename(adapter, lambda name: name.replace(".language_model.layers", ".layers"))
    assert relative_error(encode(encoder, adapter).vectors[FEATURE], expected) <= 1e-4


def test_adapter_of_the_vision_part_alone_has_a_zero_vector(encoder: Encoder, base: Path, tmp_path: Path):
    result = encode(encoder, make_adapter(base, tmp_path / "adapter", r".*vision_tower.*\.q_proj"))
    assert result.norms[FEATURE] == 0
    assert "its vector is zero" in result.notes[1]


def test_short_name_that_fits_two_parts_is_refused(tmp_path: Path):
    config = pico_multimodal.llava()
    config.vision_config.hidden_size = config.text_config.hidden_size
    base = make_base(tmp_path / "base", config)
    encoder = Encoder(ResidentBase.load(base, "pico/base", "0"), PROBES)
    adapter = make_adapter(base, tmp_path / "adapter", r".*language_model.*q_proj")
    rename(adapter, lambda name: name.replace("model.model.language_model.", "model."))
    error = refusal(encoder, adapter)
    assert isinstance(error, InvalidAdapterConfig)
    assert "vision_tower.encoder.layers.0.self_attn.q_proj" in str(error)
    assert "language_model.layers.0.self_attn.q_proj" in str(error)


def test_two_names_of_one_module_are_refused(encoder: Encoder, adapter: Path):
    add_lora(adapter, **{"model.layers.0.self_attn.q_proj": torch.ones(4, 32)})
    error = refusal(encoder, adapter)
    assert isinstance(error, InvalidAdapterConfig)
    assert "are both language_model.layers.0.self_attn.q_proj" in str(error)


def test_unknown_names_are_refused_with_names_of_the_base(encoder: Encoder, adapter: Path):
    rename(adapter, lambda name: name.replace("model.language_model.layers", "decoder.blocks"))
    error = refusal(encoder, adapter)
    assert isinstance(error, ShapeMismatch)
    assert "no module decoder.blocks.0.mlp.down_proj; the names of its modules are like language_model" in str(error)


def test_vision_part_of_a_text_base_is_refused(tmp_path: Path):
    base = make_text_base(tmp_path / "base", "llama")
    encoder = Encoder(ResidentBase.load(base, "pico/base", "0"), PROBES)
    adapter = add_lora(pico.make_adapter(tmp_path / "adapter"), **{"visual.patch_embed.proj": CONVOLUTION})
    assert "visual.patch_embed.proj" in str(refusal(encoder, adapter))


@pytest.mark.parametrize(
    "layout", ["layers.", "model.model.layers.", "language_model.model.layers.", "model.language_model.layers."]
)
def test_text_base_takes_names_of_multimodal_and_headless_classes(tmp_path: Path, layout: str):
    base = make_text_base(tmp_path / "base", "llama")
    adapter = pico.make_adapter(tmp_path / "adapter")
    expected = text_reference(base, load_with(base, adapter))
    rename(adapter, lambda name: name.replace("base_model.model.model.layers.", f"base_model.model.{layout}"))
    encoder = Encoder(ResidentBase.load(base, "pico/base", "0"), PROBES)
    assert relative_error(encode(encoder, adapter).vectors[FEATURE], expected) <= 1e-4


def test_merges_get_the_names_of_the_causal_lm(encoder: Encoder, adapter: Path):
    names = set(read_finetune(adapter).modules)
    rename(adapter, lambda name: name.replace(".language_model.layers", ".layers"))
    assert set(names_in_causal_lm(read_finetune(adapter).modules, encoder.base.model)) == names


def test_merges_refuse_two_names_of_one_module(encoder: Encoder, adapter: Path):
    add_lora(adapter, **{"model.layers.0.self_attn.q_proj": torch.ones(4, 32)})
    with pytest.raises(InvalidAdapterConfig, match="are both"):
        names_in_causal_lm(read_finetune(adapter).modules, encoder.base.model)


def test_layers_of_a_class_for_question_answering_are_refused_with_their_head(tmp_path: Path):
    base = make_text_base(tmp_path / "base", "llama")
    adapter = pico.make_adapter(tmp_path / "adapter")
    rename(adapter, lambda name: name.replace("base_model.model.model.", "base_model.model.transformer."))
    add_weights(adapter, **{"qa_outputs.weight": torch.ones(2, 32)})
    error = refusal(Encoder(ResidentBase.load(base, "pico/base", "0"), PROBES), adapter)
    assert isinstance(error, UnsupportedAdapter)
    assert "qa_outputs" in str(error)
