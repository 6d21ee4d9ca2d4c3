"""Trained rows of embeddings and output heads, heads of other tasks, and files that disagree with their config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedModel,
)

from catalog.errors import CatalogError, InvalidAdapterConfig, ShapeMismatch
from tests.support.pico_adapters import TASK, publish
from tests.support.pico_models import (
    PROBES,
    add_noise,
    last_hidden,
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

STATES, LOGITS = "delta_activations", "delta_logits"
TOLERANCE = 1e-4
ROWS, OTHER_ROWS = [66, 70, 71, 110], [34, 80, 102]  # tokens that are in the probes

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    untied = make_base(tmp_path_factory.mktemp("untied"), "llama")
    tied = tmp_path_factory.mktemp("tied")
    model = load(untied)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(tied)
    AutoTokenizer.from_pretrained(untied).save_pretrained(tied)
    return {"untied": untied, "tied": tied}


def encode(base: Path, adapter: Path, feature: str = STATES) -> Encoding:
    encoder = Encoder(ResidentBase.load(base, "pico/llama", "0"), PROBES, [feature])
    result = encoder.encode([read_finetune(adapter)])[0]
    if isinstance(result, CatalogError):
        raise result
    return result


def logits_shift(base: Path, tuned: torch.nn.Module) -> np.ndarray:
    """The shift of the centered logits of each probe's last token, (V,)."""
    tokenizer = AutoTokenizer.from_pretrained(base)

    def rows(model: torch.nn.Module) -> torch.Tensor:
        with torch.no_grad():
            logits = [model.eval()(**tokenizer(text, return_tensors="pt")).logits[0, -1] for text in PROBES.prompts]
        return torch.stack(logits)

    return (rows(tuned) - rows(load(base))).mean(dim=0).numpy()


def lora(**settings: Any) -> peft.LoraConfig:
    return peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type=TASK, **settings)


def rewrite(folder: Path, **settings: object) -> Path:
    config = folder / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))
    return folder


# trained tokens


TOKEN_CONFIGS: dict[str, peft.PeftConfig] = {
    "a list": lora(trainable_token_indices=ROWS),
    "the embedding": lora(trainable_token_indices={"embed_tokens": ROWS}),
    "the embedding by its full name": lora(trainable_token_indices={"model.embed_tokens": ROWS}),
    "the head": lora(trainable_token_indices={"lm_head": ROWS}),
    "both": lora(trainable_token_indices={"embed_tokens": ROWS, "lm_head": OTHER_ROWS}),
    "both, the head first": lora(trainable_token_indices={"lm_head": OTHER_ROWS, "model.embed_tokens": ROWS}),
    "both, as many of each": lora(trainable_token_indices={"lm_head": OTHER_ROWS, "model.embed_tokens": ROWS[:3]}),
    "the same of both": lora(trainable_token_indices={"lm_head": ROWS, "embed_tokens": ROWS}),
    "the type of PEFT": peft.TrainableTokensConfig(token_indices=ROWS, task_type=TASK),
    "the type of PEFT, named": peft.TrainableTokensConfig(
        token_indices=ROWS, target_modules=["embed_tokens"], task_type=TASK
    ),
}


@pytest.mark.parametrize("tying", ["untied", "tied"])
@pytest.mark.parametrize("name", TOKEN_CONFIGS)
def test_trained_tokens_match_peft(bases: dict[str, Path], name: str, tying: str, tmp_path: Path):
    base = bases[tying]
    folder = make_adapter(base, tmp_path, TOKEN_CONFIGS[name])
    tuned = load_with(base, folder)
    states = reference(base, tuned)
    assert np.linalg.norm(encode(base, folder).vectors[STATES] - states) <= TOLERANCE * max(np.linalg.norm(states), 1)
    assert relative_error(encode(base, folder, LOGITS).vectors[LOGITS], logits_shift(base, tuned)) <= TOLERANCE


@pytest.mark.parametrize(("saved", "notes"), [(True, 0), (False, 1)])
def test_trained_tokens_of_an_enlarged_vocabulary_match_peft(
    bases: dict[str, Path], saved: bool, notes: int, tmp_path: Path
):
    """PEFT saves the enlarged embedding as well unless it is asked not to. The probes do not have the new tokens."""
    base = bases["untied"]

    def grow(model: PreTrainedModel) -> None:
        model.resize_token_embeddings(262)

    config = lora(trainable_token_indices=[66, 258, 261])
    folder = make_adapter(base, tmp_path, config, prepare=grow, save_embedding_layers=saved)
    encoding = encode(base, folder)
    assert relative_error(encoding.vectors[STATES], reference(base, load_with(base, folder, grow))) <= TOLERANCE
    missing = ("2 trained tokens were left out, because the base does not have them.",)
    assert encoding.notes == missing[:notes]


@pytest.mark.parametrize("indices", [{"lm_head": ROWS}, {"embed_tokens": ROWS[:2]}, {"embed_tokens": "all"}, [1.5]])
def test_trained_tokens_without_their_list_are_refused(bases: dict[str, Path], indices: object, tmp_path: Path):
    folder = make_adapter(bases["untied"], tmp_path, lora(trainable_token_indices=ROWS))
    with pytest.raises(InvalidAdapterConfig, match="no list of as many tokens"):
        encode(bases["untied"], rewrite(folder, trainable_token_indices=indices))


# heads of other tasks


@pytest.mark.parametrize(
    ("model_class", "task", "head", "targets"),
    [
        (AutoModelForSequenceClassification, "SEQ_CLS", "score", ["q_proj", "v_proj"]),
        (AutoModelForSequenceClassification, "SEQ_CLS", "score", "all-linear"),
        (AutoModelForTokenClassification, "TOKEN_CLS", "score", ["q_proj", "v_proj"]),
    ],
)
def test_head_of_another_task_is_left_out_and_noted(
    bases: dict[str, Path], model_class: Any, task: str, head: str, targets: list[str] | str, tmp_path: Path
):
    base = bases["untied"]
    torch.manual_seed(0)
    model = model_class.from_pretrained(base, dtype=torch.float32)
    tuned = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=targets, task_type=task))
    add_noise(tuned, 3, scale=0.3, trainable=True)
    tuned.save_pretrained(tmp_path)
    expected = (last_hidden(tuned, base) - last_hidden(load(base), base)).mean(dim=0).numpy()
    encoding = encode(base, tmp_path)
    assert relative_error(encoding.vectors[STATES], expected) <= TOLERANCE
    assert f"The adapter's {head} was left out, because no feature reads it." in encoding.notes


@pytest.mark.parametrize("head", ["v_head.summary", "value_head", "custom_head"])
def test_head_of_a_trainer_is_left_out_and_noted(bases: dict[str, Path], head: str, tmp_path: Path):
    base = bases["untied"]
    folder = publish(base, tmp_path, "llama", "lora")
    expected = encode(base, folder).vectors[STATES]
    tensors = load_file(folder / "adapter_model.safetensors") | {f"base_model.model.{head}.weight": torch.ones(1, 32)}
    save_file(tensors, folder / "adapter_model.safetensors")
    encoding = encode(base, rewrite(folder, modules_to_save=["custom_head"]))
    np.testing.assert_array_equal(encoding.vectors[STATES], expected)
    assert len(encoding.notes) == 1


# files that disagree with their config


@pytest.mark.parametrize("side", ["A", "B"])
def test_half_of_a_pair_is_refused(bases: dict[str, Path], side: str, tmp_path: Path):
    folder = publish(bases["untied"], tmp_path, "llama", "lora")
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(
        {name: tensor for name, tensor in tensors.items() if f"lora_{side}" not in name},
        folder / "adapter_model.safetensors",
    )
    with pytest.raises(InvalidAdapterConfig, match=f"its lora_{side} is missing. Save the adapter again"):
        read_finetune(folder)


def test_reduced_vocabulary_is_refused_for_logits(bases: dict[str, Path], tmp_path: Path):
    base = bases["untied"]

    def shrink(model: PreTrainedModel) -> None:
        model.resize_token_embeddings(250)

    folder = make_adapter(base, tmp_path, lora(modules_to_save=["embed_tokens", "lm_head"]), prepare=shrink)
    assert encode(base, folder).vectors[STATES].any()
    with pytest.raises(ShapeMismatch, match="only 250 tokens and its base 258"):
        encode(base, folder, LOGITS)
