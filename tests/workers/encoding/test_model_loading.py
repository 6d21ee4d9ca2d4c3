"""Limits of what an untrusted config may ask for, on the configs of all causal and multimodal language models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING, AutoModel, PreTrainedConfig
from transformers.models.auto import modeling_auto

from catalog.errors import InvalidModelConfig
from tests.support.pico_models import make_base, pico_config
from workers.encoding import model_loading
from workers.encoding.model_loading import LAYER_COUNT, MIN_LAYERS, MODULES_PER_TENSOR, clean_view, load_config

TYPES = sorted(
    {*modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES}
)
LARGE = 20_000

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


def config_of(model_type: str) -> PreTrainedConfig:
    try:
        return pico_config(CONFIG_MAPPING[model_type])
    except Exception:  # its sizes depend on each other
        try:
            return CONFIG_MAPPING[model_type]()
        except Exception:
            pytest.skip("has no valid default config")


def size(value: Any) -> int:
    """The number of values in a config."""
    if isinstance(value, PreTrainedConfig):
        return size(vars(value))
    if isinstance(value, dict):
        return 1 + sum(map(size, value.values()))
    return 1 + sum(map(size, value)) if isinstance(value, list | tuple | set) else 1


def integers(config: dict[str, Any]) -> Iterator[tuple[str, int]]:
    yield from ((name, value) for name, value in config.items() if type(value) is int and name != "num_labels")


@pytest.mark.exhaustive
@pytest.mark.parametrize("model_type", TYPES)
def test_only_numbers_of_layers_make_a_config_grow(model_type: str):
    config = config_of(model_type)
    before = size(config)
    for name, _ in integers(config.to_dict()):
        try:
            grown = size(CONFIG_MAPPING[model_type](**{name: LARGE}))
        except Exception:  # validated against another setting
            continue
        assert grown < before + LARGE or LAYER_COUNT.search(name), name


@pytest.mark.exhaustive
@pytest.mark.parametrize("model_type", TYPES)
def test_numbers_of_layers_are_below_the_limit(model_type: str):
    content = json.loads(config_of(model_type).to_json_string(use_diff=False))
    for name, count in model_loading._layer_counts(content):
        assert count <= MIN_LAYERS, name


@pytest.mark.exhaustive
@pytest.mark.parametrize("model_type", TYPES)
def test_models_have_few_modules_for_each_tensor(model_type: str):
    registered: list[str] = []
    config = config_of(model_type)
    hooks = [
        hook(lambda module, name, value: registered.append(name))
        for hook in (
            model_loading.register_module_module_registration_hook,
            model_loading.register_module_parameter_registration_hook,
        )
    ]
    try:
        with torch.device("meta"):
            model = AutoModel.from_config(config)
    except Exception:  # no headless class, or a size that does not fit
        pytest.skip("cannot be built from its default config")
    finally:
        for hook in hooks:
            hook.remove()
    assert len(registered) <= MODULES_PER_TENSOR / 2 * len(model.state_dict())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers = 1,000,000,000"),
        ({"text_config": {"num_hidden_layers": 10**9}}, "num_hidden_layers = 1,000,000,000"),
        ({"vision_config": {"depths": [2, 10**9]}}, "depths = 1,000,000,000"),
        ({"model_type": "gpt_neo", "attention_types": [[["global"], 10**9]]}, "attention_types = 1,000,000,000"),
        ({"num_hidden_layers": 4000}, "more than 16,384 modules and parameters"),
        ({"hidden_size": 2**20, "num_attention_heads": 4}, "parameters, but the files have"),
    ],
)
def test_config_of_a_larger_model_than_its_files_is_refused(tmp_path: Path, settings: dict[str, Any], message: str):
    folder = make_base(tmp_path, "llama")
    config = json.loads((folder / "config.json").read_text()) | settings
    with clean_view(folder, config) as view, pytest.raises(InvalidModelConfig, match=message):
        load_config(view, InvalidModelConfig)


@pytest.mark.parametrize("settings", [{"num_labels": 10**12}, {"shared_expert_intermediate_size": 10**6}])
def test_large_number_that_allocates_nothing_is_accepted(tmp_path: Path, settings: dict[str, Any]):
    folder = make_base(tmp_path, "llama")
    config = json.loads((folder / "config.json").read_text()) | settings
    with clean_view(folder, config) as view:
        assert load_config(view, InvalidModelConfig).num_hidden_layers == 2


def test_masks_that_are_not_in_the_files_may_be_large(tmp_path: Path):
    """GPT-2 XL has a mask of 1,024 x 1,024 in each of 48 layers, which newer files do not hold."""
    config = {"model_type": "gpt2", "n_embd": 1600, "n_layer": 48, "n_head": 25, "n_positions": 1024}
    weights = torch.empty(1_557_611_200 // 16, dtype=torch.bfloat16).expand(1, -1)
    config |= {"n_embd": 400, "n_head": 25, "vocab_size": 12_564}  # a sixteenth of the weights, and all of the masks
    save_file({"weights": weights.contiguous()}, tmp_path / "model.safetensors")
    with clean_view(tmp_path, config) as view:
        assert load_config(view, InvalidModelConfig).num_hidden_layers == 48
