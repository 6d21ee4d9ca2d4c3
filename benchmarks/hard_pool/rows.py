"""One row of instruction data, and how it becomes tokens: the Alpaca template, a loss on the answer alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

MAX_TOKENS = 160
MAX_ANSWER = 96
IGNORED = -100
OPENING = "Below is an instruction that describes a task"
PAIRED = ", paired with an input that provides further context"
ORDER = ". Write a response that appropriately completes the request.\n\n### Instruction:\n"


@dataclass(frozen=True)
class Row:
    instruction: str
    input: str
    output: str

    def prompt(self, given: str) -> str:
        """The template (Taori et al. 2023, github.com/tatsu-lab/stanford_alpaca), with or without an input."""
        middle = f"\n\n### Input:\n{given}" if given else ""
        return f"{OPENING}{PAIRED if given else ''}{ORDER}{self.instruction}{middle}\n\n### Response:\n"


@dataclass(frozen=True)
class Example:
    """Tokens of prompt and answer; the first `prompt` of them carry no loss."""

    ids: tuple[int, ...]
    prompt: int


@dataclass(frozen=True, eq=False)
class Batch:
    """Right-padded tokens: `ids`, `mask` and `labels` are (B, T); labels are -100 where there is no loss."""

    ids: Tensor
    mask: Tensor
    labels: Tensor


def encode(row: Row, tokenizer: PreTrainedTokenizerBase) -> Example:
    """A long input is cut at its end, so that the answer stays."""
    answer = [*tokenizer(row.output)["input_ids"], tokenizer.eos_token_id][:MAX_ANSWER]
    given = ""
    if row.input:
        frame = len(tokenizer(row.prompt("."))["input_ids"])
        room = max(8, MAX_TOKENS - len(answer) - frame)
        given = tokenizer.decode(tokenizer(row.input)["input_ids"][:room])
    prompt = tokenizer(row.prompt(given))["input_ids"]
    return Example((*prompt, *answer), len(prompt))


def collate(examples: Sequence[Example], pad: int) -> Batch:
    width = max(len(example.ids) for example in examples)
    ids = torch.full((len(examples), width), pad)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for place, example in enumerate(examples):
        length = len(example.ids)
        ids[place, :length] = torch.tensor(example.ids)
        mask[place, :length] = 1
        labels[place, example.prompt : length] = ids[place, example.prompt : length]
    return Batch(ids, mask, labels)


def grouped(lengths: Sequence[int], size: int, shuffle: random.Random) -> list[list[int]]:
    """Places of one epoch in batches of near length, in random order: little padding, hence little time."""
    order = sorted(range(len(lengths)), key=lambda place: (lengths[place], shuffle.random()))
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    shuffle.shuffle(groups)
    return groups
