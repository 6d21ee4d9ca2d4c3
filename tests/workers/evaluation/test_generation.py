"""Greedy answers match `generate` of transformers on models loaded by PEFT."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from catalog.errors import UnsupportedAdapter
from tests.support.pico_adapters import publish
from tests.support.pico_models import add_noise, load, load_with, make_base
from workers.encoding.guard import BaseGuard
from workers.encoding.resident_base import ResidentBase
from workers.evaluation.generation import generate_answers
from workers.finetunes.reading import read_finetune

PROMPTS = ("Please answer.", "a", "The longest of the three prompts reads on.")
LENGTH = 6

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"), "llama")


def reference(base: Path, model: torch.nn.Module) -> list[str]:
    """The answer to each prompt on its own, without padding."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    texts = []
    for prompt in PROMPTS:
        tokens = tokenizer(prompt, return_tensors="pt")
        ids = model.eval().generate(**tokens, max_new_tokens=LENGTH, do_sample=False, pad_token_id=1)
        texts.append(tokenizer.decode(ids[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True))
    return texts


def test_batched_answers_match_unbatched_ones_for_every_kind(base: Path, tmp_path: Path):
    kinds = ("lora", "rslora", "dora", "ia3", "modules_to_save")
    folders = [publish(base, tmp_path / kind, "llama", kind, seed=seed) for seed, kind in enumerate(kinds)]
    model = load(base)
    add_noise(model, 5, scale=0.1)
    model.save_pretrained(tmp_path / "full")
    resident = ResidentBase.load(base, "pico", "0")
    guard = BaseGuard(resident.model)
    finetunes = [read_finetune(folder) for folder in (*folders, tmp_path / "full")]
    answers = generate_answers(finetunes, resident, guard, PROMPTS, LENGTH)
    assert answers[:-1] == [reference(base, load_with(base, folder)) for folder in folders]
    assert answers[-1] == reference(base, model)
    assert len({tuple(texts) for texts in answers}) > 3
    assert not guard.corrupted


def test_prompt_adapter_is_refused(base: Path, tmp_path: Path):
    resident = ResidentBase.load(base, "pico", "0")
    prompt = read_finetune(publish(base, tmp_path / "prompt", "llama", "prompt_tuning"))
    with pytest.raises(UnsupportedAdapter):
        generate_answers([prompt], resident, BaseGuard(resident.model), PROMPTS, LENGTH)
