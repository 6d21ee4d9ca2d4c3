from __future__ import annotations

from itertools import islice

import pytest
import torch

from catalog.tasks.examples import Example
from tests.support.pico import byte_tokenizer
from workers.tasks.token_rows import IGNORED, Row, batches, collate, encode


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


def test_prompt_and_output_stand_behind_one_another(tokenizer):
    example = Example("Add.", "two", "1 + 1")
    row = encode(example, tokenizer, 1000)
    assert tokenizer.decode(row.ids[: row.prompt]) == example.prompt()
    assert tokenizer.decode(row.ids[row.prompt : -1]) == "two"
    assert row.ids[-1] == tokenizer.eos_token_id


def test_a_long_input_is_cut_so_that_the_output_stays(tokenizer):
    row = encode(Example("Add.", "two", "1" * 900), tokenizer, 300)
    assert 290 < len(row.ids) <= 300
    assert tokenizer.decode(row.ids[row.prompt : -1]) == "two"
    assert tokenizer.decode(row.ids[: row.prompt]).endswith("### Response:\n")


def test_a_long_chat_loses_its_oldest_turns(tokenizer):
    row = encode(Example("Add.", "two", "1" * 900 + "\nuser: one", chat=True), tokenizer, 300)
    assert 290 < len(row.ids) <= 300
    assert tokenizer.decode(row.ids[: row.prompt]).endswith("11\nuser: one\n\n### Response:\n")


def test_a_long_instruction_is_cut_so_that_the_answer_is_announced(tokenizer):
    row = encode(Example("Add " + "1" * 900, "two"), tokenizer, 300)
    prompt = tokenizer.decode(row.ids[: row.prompt])
    assert "### Instruction:\nAdd 1" in prompt
    assert prompt.endswith("### Response:\n")
    assert 290 < len(row.ids) <= 300


def test_an_input_goes_before_an_instruction(tokenizer):
    row = encode(Example("Add " + "1" * 900, "two", "3" * 900), tokenizer, 400)
    prompt = tokenizer.decode(row.ids[: row.prompt])
    assert "### Input:\n33333333\n" in prompt
    assert prompt.endswith("### Response:\n")


def test_a_long_output_takes_half(tokenizer):
    row = encode(Example("Add.", "2" * 900), tokenizer, 300)
    assert len(row.ids) - row.prompt == 150
    assert len(row.ids) <= 300


def test_a_batch_has_losses_on_outputs_alone():
    batch = collate([Row((5, 6, 7), 1), Row((8, 9), 1)], 0)
    assert batch.ids.tolist() == [[5, 6, 7], [8, 9, 0]]
    assert batch.mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert torch.equal(batch.labels, torch.tensor([[IGNORED, 6, 7], [IGNORED, 9, IGNORED]]))


def test_each_row_comes_once_a_round_and_the_seed_decides_the_order():
    rows = [Row((number,), 0) for number in range(7)]

    def first_round(seed: int) -> list[int]:
        return [row.ids[0] for part in islice(batches(rows, 2, seed), 4) for row in part]

    assert sorted(first_round(1)) == list(range(7))
    assert first_round(1) == first_round(1)
    assert first_round(1) != first_round(2)
