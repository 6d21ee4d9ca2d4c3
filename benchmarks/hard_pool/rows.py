"""Rows of instruction data and their tokens: the Alpaca template, with the loss on the answer only."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from catalog.tasks.examples import Example
from workers.tasks.token_rows import Row as Tokens

MAX_TOKENS = 160
MAX_ANSWER = 96


@dataclass(frozen=True)
class Row:
    instruction: str
    input: str
    output: str

    def prompt(self, input_text: str) -> str:
        """The Alpaca prompt, with an input or without one if it is empty."""
        return Example(self.instruction, self.output).prompt(input_text)


def encode(row: Row, tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """Tokenize a row; a long input is truncated, so that the answer stays complete."""
    answer = [*tokenizer(row.output)["input_ids"], tokenizer.eos_token_id][:MAX_ANSWER]
    input_text = ""
    if row.input:
        template_length = len(tokenizer(row.prompt("."))["input_ids"])
        max_input = max(8, MAX_TOKENS - len(answer) - template_length)
        input_text = tokenizer.decode(tokenizer(row.input)["input_ids"][:max_input])
    prompt = tokenizer(row.prompt(input_text))["input_ids"]
    return Tokens((*prompt, *answer), len(prompt))


def group_by_length(lengths: Sequence[int], size: int, shuffle: random.Random) -> list[list[int]]:
    """The indices of one epoch in batches of similar length, which need little padding, in random order."""
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], shuffle.random()))
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    shuffle.shuffle(groups)
    return groups
