"""From probe prompts to the tokens of one forward."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from catalog.errors import InvalidProbeSet
from catalog.probes import ProbeSet

MAX_TOKENS = 256  # a prompt; as in the published procedure


@dataclass(frozen=True, eq=False)
class TokenPlan:
    """What one model reads in one forward: the T tokens of all N probes, one after another and without padding."""

    ids: Tensor  # (T,)
    positions: Tensor  # (T,), from 0 in each probe
    probe: Tensor  # (T,), the probe that a token belongs to
    last: Tensor  # (N,), where each prompt's last token stands

    @property
    def probes(self) -> int:
        return len(self.last)

    @property
    def tokens(self) -> int:
        return len(self.ids)


def plan_tokens(tokenizer: PreTrainedTokenizerBase, probes: ProbeSet) -> TokenPlan:
    """Each prompt tokenised on its own, with the tokenizer's special tokens, cut at 256 tokens.

    Raises `InvalidProbeSet` where a prompt comes out empty.
    """
    rows = [tokenizer(text, truncation=True, max_length=MAX_TOKENS)["input_ids"] for text in probes.prompts]
    for number, row in enumerate(rows, 1):
        if not row:
            raise InvalidProbeSet(f"Prompt {number} of {probes.name} has no tokens in this base's tokenizer.")
    lengths = torch.tensor([len(row) for row in rows])
    return TokenPlan(
        ids=torch.tensor([token for row in rows for token in row]),
        positions=torch.cat([torch.arange(length) for length in lengths]),
        probe=torch.repeat_interleave(torch.arange(len(rows)), lengths),
        last=lengths.cumsum(0) - 1,
    )
