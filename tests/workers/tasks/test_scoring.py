from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from catalog.errors import ShapeMismatch
from tests.support.pico import make_adapter
from workers.finetunes.reading import read_finetune
from workers.tasks.scoring import Scorer
from workers.tasks.token_rows import collate, encode

MAX_TOKENS = 300


def losses_of(model, tokenizer, examples):
    """The losses by transformers itself, one example at a time."""
    losses = []
    for example in examples:
        batch = collate([encode(example, tokenizer, MAX_TOKENS)], 0)
        with torch.no_grad():
            logits = model(input_ids=batch.ids).logits[:, :-1]
        labels = batch.labels[:, 1:]
        losses.append(float(torch.nn.functional.cross_entropy(logits[0], labels[0], reduction="sum")))
    return losses


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_losses_are_those_of_transformers_and_peft(encoder, examples, tmp_path):
    base = encoder.base
    scorer = Scorer(encoder, examples, MAX_TOKENS)
    plain = AutoModelForCausalLM.from_pretrained(base.folder)
    np.testing.assert_allclose(scorer.base().summed, losses_of(plain, base.tokenizer, examples), rtol=1e-4)
    folder = make_adapter(tmp_path / "a")
    [result] = scorer.finetunes([read_finetune(folder)])
    tuned = PeftModel.from_pretrained(plain, folder)
    np.testing.assert_allclose(result.summed, losses_of(tuned, base.tokenizer, examples), rtol=1e-4)
    assert result.tokens.tolist() == [len(example.output) + 1 for example in examples]
    assert result.per_token == pytest.approx(result.summed.sum() / result.tokens.sum())


def test_finetune_of_another_shape_gives_an_error(encoder, examples, tmp_path):
    scorer = Scorer(encoder, examples, MAX_TOKENS)
    good, wide = make_adapter(tmp_path / "good"), make_adapter(tmp_path / "wide", hidden=64)
    first, second = scorer.finetunes([read_finetune(wide), read_finetune(good)])
    assert isinstance(first, ShapeMismatch)
    assert second.tokens.sum() == sum(len(example.output) + 1 for example in examples)
