"""Explanations: the tokens that a shift makes more and less likely."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.encoding.output_head import Head
from workers.encoding.tokenizer import Tokenizer

TOKENS_PER_SIDE = 20


@dataclass(frozen=True)
class TokenShift:
    """One entry of the vocabulary, and the mean shift of its logit over the probes."""

    token: str
    token_id: int
    shift: float


@dataclass(frozen=True)
class Explanation:
    """The 20 tokens that a shift promotes most and the 20 it suppresses most, strongest first."""

    promoted: tuple[TokenShift, ...]
    suppressed: tuple[TokenShift, ...]


def explain(shifts: Tensor, head: Head, tokenizer: Tokenizer) -> list[Explanation]:
    """Explain mean shifts of final hidden states, (K, H), through the base's output head.

    The head is linear except for a soft cap; without one, these are the exact mean shifts of the base's logits.
    """
    with torch.inference_mode():
        # some models pad their vocabulary beyond the tokenizer's
        logits = head.approximate_logits(shifts)[:, : len(tokenizer)]
        count = min(TOKENS_PER_SIDE, logits.shape[1])
        highest, lowest = logits.topk(count), logits.topk(count, largest=False)
    ids = torch.cat([highest.indices, lowest.indices], dim=1).flatten().tolist()
    texts = dict(zip(ids, tokenizer.batch_decode([[token] for token in ids]), strict=True))
    return [
        Explanation(_tokens(*up, texts), _tokens(*down, texts))
        for up, down in zip(zip(*highest, strict=True), zip(*lowest, strict=True), strict=True)
    ]


def _tokens(shifts: Tensor, ids: Tensor, texts: Mapping[int, str]) -> tuple[TokenShift, ...]:
    pairs = zip(ids.tolist(), shifts.tolist(), strict=True)
    return tuple(TokenShift(texts[token], token, round(shift, 4)) for token, shift in pairs)
