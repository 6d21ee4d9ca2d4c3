"""From examples to the tokens that are trained on."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from catalog.tasks.examples import Example

IGNORED = -100  # the label of a token without a loss
LEAST_INPUT = 8  # tokens of an input, or of an instruction, that stay, however long the rest


@dataclass(frozen=True)
class Row:
    """The tokens of prompt and output; the first `prompt` of them carry no loss."""

    ids: tuple[int, ...]
    prompt: int


@dataclass(frozen=True, eq=False)
class Batch:
    """Right-padded tokens: `ids`, `mask` and `labels` are (B, T); labels are -100 where there is no loss."""

    ids: Tensor
    mask: Tensor
    labels: Tensor


def encode(example: Example, tokenizer: PreTrainedTokenizerBase, limit: int) -> Row:
    """At most `limit` tokens: an output is cut to half of them, then the prompt so that the output stays."""
    answer = _ids(tokenizer, example.output, special=False)
    if tokenizer.eos_token_id is not None:
        answer.append(tokenizer.eos_token_id)
    answer = answer[: limit // 2]
    prompt = _prompt(example, tokenizer, limit - len(answer))
    return Row((*prompt, *answer), len(prompt))


def _prompt(example: Example, tokenizer: PreTrainedTokenizerBase, room: int) -> list[int]:
    """At most `room` tokens: the input is cut first (a chat's loses its oldest turns), then the instruction; what
    announces the answer stays.
    """
    given = example.input
    if given:
        frame = len(_ids(tokenizer, example.prompt(".")))
        cut = _end if example.chat else _beginning
        given = cut(given, tokenizer, max(LEAST_INPUT, room - frame))
    over = len(_ids(tokenizer, example.prompt(given))) - room
    if over > 0:
        length = len(_ids(tokenizer, example.instruction, special=False))
        asked = _beginning(example.instruction, tokenizer, max(LEAST_INPUT, length - over))
        example = replace(example, instruction=asked)
    return _ids(tokenizer, example.prompt(given))[-room:]


def _beginning(text: str, tokenizer: PreTrainedTokenizerBase, tokens: int) -> str:
    return str(tokenizer.decode(_ids(tokenizer, text, special=False)[:tokens]))


def _end(text: str, tokenizer: PreTrainedTokenizerBase, tokens: int) -> str:
    return str(tokenizer.decode(_ids(tokenizer, text, special=False)[-tokens:]))


def collate(rows: Sequence[Row], padding: int) -> Batch:
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), padding)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for place, row in enumerate(rows):
        length = len(row.ids)
        ids[place, :length] = torch.tensor(row.ids)
        mask[place, :length] = 1
        labels[place, row.prompt : length] = ids[place, row.prompt : length]
    return Batch(ids, mask, labels)


def batches(rows: Sequence[Row], size: int, seed: int) -> Iterator[list[Row]]:
    """Without end, each row once a round: batches of near length, which saves padding, in random order."""
    shuffle = random.Random(seed)
    while True:
        order = sorted(rows, key=lambda row: (len(row.ids) // 16, shuffle.random()))
        groups = [order[start : start + size] for start in range(0, len(order), size)]
        shuffle.shuffle(groups)
        yield from groups


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool = True) -> list[int]:
    return list(tokenizer(text, add_special_tokens=special)["input_ids"])
