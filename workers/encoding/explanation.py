"""A shift in words: the tokens that it makes likelier and less likely."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from workers.encoding.output_head import Head

COUNT = 20


@dataclass(frozen=True)
class TokenShift:
    """One entry of the vocabulary, and how far its logit moves on average over the probes."""

    token: str
    token_id: int
    shift: float


@dataclass(frozen=True)
class Explanation:
    """What a shift promotes and suppresses most, 20 tokens each, the strongest first."""

    promoted: tuple[TokenShift, ...]
    suppressed: tuple[TokenShift, ...]


def explain(shifts: Tensor, head: Head, tokenizer: PreTrainedTokenizerBase) -> list[Explanation]:
    """Reads mean shifts of final hidden states, (K, H), through the base's output head.

    The head is linear but for a soft cap, so without one these are the exact mean shifts of the base's logits.
    """
    with torch.inference_mode():
        logits = head.roughly(shifts)[:, : len(tokenizer)]  # some vocabularies are padded beyond their tokenizer's
        count = min(COUNT, logits.shape[1])
        most, least = logits.topk(count), logits.topk(count, largest=False)
    return [
        Explanation(_tokens(*up, tokenizer), _tokens(*down, tokenizer))
        for up, down in zip(zip(*most, strict=True), zip(*least, strict=True), strict=True)
    ]


def _tokens(shifts: Tensor, ids: Tensor, tokenizer: PreTrainedTokenizerBase) -> tuple[TokenShift, ...]:
    pairs = zip(ids.tolist(), shifts.tolist(), strict=True)
    return tuple(TokenShift(str(tokenizer.decode([token])), token, round(shift, 4)) for token, shift in pairs)
