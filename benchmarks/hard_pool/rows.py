"""One row of instruction data, and how it becomes tokens: the Alpaca template, a loss on the answer alone."""

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

    def prompt(self, given: str) -> str:
        """Alpaca's, with or without an input."""
        return Example(self.instruction, self.output).prompt(given)


def encode(row: Row, tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """A long input is cut at its end, so that the answer stays."""
    answer = [*tokenizer(row.output)["input_ids"], tokenizer.eos_token_id][:MAX_ANSWER]
    given = ""
    if row.input:
        frame = len(tokenizer(row.prompt("."))["input_ids"])
        room = max(8, MAX_TOKENS - len(answer) - frame)
        given = tokenizer.decode(tokenizer(row.input)["input_ids"][:room])
    prompt = tokenizer(row.prompt(given))["input_ids"]
    return Tokens((*prompt, *answer), len(prompt))


def group_by_length(lengths: Sequence[int], size: int, shuffle: random.Random) -> list[list[int]]:
    """Places of one epoch in batches of near length, in random order: little padding, hence little time."""
    order = sorted(range(len(lengths)), key=lambda place: (lengths[place], shuffle.random()))
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    shuffle.shuffle(groups)
    return groups
