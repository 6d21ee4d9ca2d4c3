"""The tokens of examples, truncated and in batches."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from catalog.tasks.examples import Example
from workers.encoding.tokenizer import Tokenizer

IGNORED = -100  # the label of a token without a loss
MIN_INPUT = 8  # tokens of an input or an instruction that are kept in any case


@dataclass(frozen=True)
class Row:
    """The tokens of a prompt followed by those of its output. The prompt has no loss."""

    ids: tuple[int, ...]
    prompt_length: int


@dataclass(frozen=True, eq=False)
class Batch:
    """Right-padded rows: `ids`, `mask` and `labels` are (B, T). Labels are `IGNORED` where there is no loss."""

    ids: Tensor
    mask: Tensor
    labels: Tensor


def encode(example: Example, tokenizer: Tokenizer, max_tokens: int) -> Row:
    """Encode an example in at most `max_tokens`. The output takes at most half of them, the prompt the rest."""
    output = _ids(tokenizer, example.output, special=False)
    if tokenizer.eos_token_id is not None:
        output.append(tokenizer.eos_token_id)
    output = output[: max_tokens // 2]
    prompt = _prompt(example, tokenizer, max_tokens - len(output))
    return Row((*prompt, *output), len(prompt))


def _prompt(example: Example, tokenizer: Tokenizer, max_tokens: int) -> list[int]:
    """The prompt in at most `max_tokens`. The input is truncated first (that of a chat at its start), then the
    instruction; the end of the prompt, which precedes the answer, is kept.
    """
    input_text = example.input
    if input_text:
        template_length = len(_ids(tokenizer, example.prompt(".")))
        truncate = _tail if example.chat else _head
        input_text = truncate(input_text, tokenizer, max(MIN_INPUT, max_tokens - template_length))
    excess = len(_ids(tokenizer, example.prompt(input_text))) - max_tokens
    if excess > 0:
        length = len(_ids(tokenizer, example.instruction, special=False))
        instruction = _head(example.instruction, tokenizer, max(MIN_INPUT, length - excess))
        example = replace(example, instruction=instruction)
    return _ids(tokenizer, example.prompt(input_text))[-max_tokens:]


def _head(text: str, tokenizer: Tokenizer, tokens: int) -> str:
    return str(tokenizer.decode(_ids(tokenizer, text, special=False)[:tokens]))


def _tail(text: str, tokenizer: Tokenizer, tokens: int) -> str:
    return str(tokenizer.decode(_ids(tokenizer, text, special=False)[-tokens:]))


def collate(rows: Sequence[Row], padding: int) -> Batch:
    """Pad rows with the token `padding` to the length of the longest."""
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), padding)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for index, row in enumerate(rows):
        length = len(row.ids)
        ids[index, :length] = torch.tensor(row.ids)
        mask[index, :length] = 1
        labels[index, row.prompt_length : length] = ids[index, row.prompt_length : length]
    return Batch(ids, mask, labels)


def batches(rows: Sequence[Row], size: int, seed: int) -> Iterator[list[Row]]:
    """Endless batches, with each row once per epoch. Rows of similar length share a batch, which saves padding; the
    batches of an epoch come in random order.
    """
    rng = random.Random(seed)
    while True:
        order = sorted(rows, key=lambda row: (len(row.ids) // 16, rng.random()))
        epoch = [order[start : start + size] for start in range(0, len(order), size)]
        rng.shuffle(epoch)
        yield from epoch


def _ids(tokenizer: Tokenizer, text: str, *, special: bool = True) -> list[int]:
    return list(tokenizer(text, add_special_tokens=special)["input_ids"])
