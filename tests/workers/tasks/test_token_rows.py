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


def test_row_is_the_prompt_followed_by_the_output(tokenizer):
    example = Example("Add.", "two", "1 + 1")
    row = encode(example, tokenizer, 1000)
    assert tokenizer.decode(row.ids[: row.prompt_length]) == example.prompt()
    assert tokenizer.decode(row.ids[row.prompt_length : -1]) == "two"
    assert row.ids[-1] == tokenizer.eos_token_id


def test_long_input_is_truncated_before_the_output(tokenizer):
    row = encode(Example("Add.", "two", "1" * 900), tokenizer, 300)
    assert 290 < len(row.ids) <= 300
    assert tokenizer.decode(row.ids[row.prompt_length : -1]) == "two"
    assert tokenizer.decode(row.ids[: row.prompt_length]).endswith("### Response:\n")


def test_long_chat_is_truncated_at_its_start(tokenizer):
    row = encode(Example("Add.", "two", "1" * 900 + "\nuser: one", chat=True), tokenizer, 300)
    assert 290 < len(row.ids) <= 300
    assert tokenizer.decode(row.ids[: row.prompt_length]).endswith("11\nuser: one\n\n### Response:\n")


def test_long_instruction_is_truncated_before_the_end_of_the_prompt(tokenizer):
    row = encode(Example("Add " + "1" * 900, "two"), tokenizer, 300)
    prompt = tokenizer.decode(row.ids[: row.prompt_length])
    assert "### Instruction:\nAdd 1" in prompt
    assert prompt.endswith("### Response:\n")
    assert 290 < len(row.ids) <= 300


def test_input_is_truncated_before_the_instruction(tokenizer):
    row = encode(Example("Add " + "1" * 900, "two", "3" * 900), tokenizer, 400)
    prompt = tokenizer.decode(row.ids[: row.prompt_length])
    assert "### Input:\n33333333\n" in prompt
    assert prompt.endswith("### Response:\n")


def test_long_output_is_truncated_to_half_of_the_tokens(tokenizer):
    row = encode(Example("Add.", "2" * 900), tokenizer, 300)
    assert len(row.ids) - row.prompt_length == 150
    assert len(row.ids) <= 300


def test_batch_has_labels_for_outputs_alone():
    batch = collate([Row((5, 6, 7), 1), Row((8, 9), 1)], 0)
    assert batch.ids.tolist() == [[5, 6, 7], [8, 9, 0]]
    assert batch.mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert torch.equal(batch.labels, torch.tensor([[IGNORED, 6, 7], [IGNORED, 9, IGNORED]]))


def test_each_row_comes_once_per_epoch_in_an_order_that_depends_on_the_seed():
    rows = [Row((number,), 0) for number in range(7)]

    def first_epoch(seed: int) -> list[int]:
        return [row.ids[0] for part in islice(batches(rows, 2, seed), 4) for row in part]

    assert sorted(first_epoch(1)) == list(range(7))
    assert first_epoch(1) == first_epoch(1)
    assert first_epoch(1) != first_epoch(2)
