"""The tokens of one forward pass, from probe prompts and their continuations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from catalog.errors import InvalidProbeSet
from catalog.spaces.probes import ProbeSet
from workers.encoding.tokenizer import Tokenizer

MAX_PROMPT_TOKENS = 256  # as in the published procedure
PROMPT = -1  # the branch of a prompt's own tokens


def _no_tokens() -> Tensor:
    return torch.zeros(0, dtype=torch.long)


@dataclass(frozen=True, eq=False)
class TokenPlan:
    """The input of one model in one forward pass: the T tokens of all N probes, concatenated without padding.

    A prompt may be followed by some of M continuations, each on a branch of its own: it attends to the prompt and to
    itself, at the positions that it would have without the others. The last token of a continuation is left out,
    because nothing is predicted from it.
    """

    ids: Tensor  # (T,)
    positions: Tensor  # (T,), from 0 in each probe
    probe: Tensor  # (T,), the probe of each token
    last: Tensor  # (N,), the index of each prompt's last token
    branch: Tensor  # (T,), PROMPT or the continuation of each token
    predictor: Tensor = field(default_factory=_no_tokens)  # (C,), the token before each continuation token
    target: Tensor = field(default_factory=_no_tokens)  # (C,), the id of the predicted token
    continuation: Tensor = field(default_factory=_no_tokens)  # (C,), its continuation
    layer: int = -1  # whose hidden states are read; an index into `hidden_states`
    middle: int | None = None  # a second layer whose hidden states are read
    to_end: bool = True  # whether a feature reads later layers
    head: bool = False  # whether a feature reads logits
    whole: bool = True  # whether the final states of all tokens are read, not only those of last tokens and predictors

    @property
    def probes(self) -> int:
        return len(self.last)

    @property
    def tokens(self) -> int:
        return len(self.ids)

    @property
    def prompt_tokens(self) -> Tensor:
        """The indices of the prompts' tokens."""
        return (self.branch == PROMPT).nonzero().squeeze(1)

    @property
    def read_at_end(self) -> Tensor | None:
        """The indices of tokens whose final states are read; None for all."""
        return None if self.whole else torch.cat([self.last, self.predictor]).unique()

    def to(self, device: str) -> TokenPlan:
        tensors: dict[str, Any] = {
            name: tensor.to(device) for name, tensor in vars(self).items() if isinstance(tensor, Tensor)
        }
        return replace(self, **tensors)

    def parts(self, tokens: int) -> Iterator[TokenPlan]:
        """Plans of whole probes with at most `tokens` tokens each (or one probe)."""
        counts = torch.bincount(self.probe).tolist()
        start = 0
        while start < self.probes:
            stop, size = start + 1, counts[start]
            while stop < self.probes and size + counts[stop] <= tokens:
                size, stop = size + counts[stop], stop + 1
            yield self if (start, stop) == (0, self.probes) else self._slice(start, stop)
            start = stop

    def _slice(self, start: int, stop: int) -> TokenPlan:
        in_slice = (self.probe >= start) & (self.probe < stop)
        offset = int((self.probe < start).sum())
        scored = in_slice[self.predictor]
        return replace(
            self,
            ids=self.ids[in_slice],
            positions=self.positions[in_slice],
            probe=self.probe[in_slice] - start,
            last=self.last[start:stop] - offset,
            branch=self.branch[in_slice],
            predictor=self.predictor[scored] - offset,
            target=self.target[scored],
            continuation=self.continuation[scored],
        )


def plan_tokens(
    tokenizer: Tokenizer,
    probes: ProbeSet,
    continuations: Sequence[str] = (),
    *,
    layer: int = -1,
    middle: int | None = None,
    to_end: bool = True,
    head: bool = False,
    whole: bool = True,
) -> TokenPlan:
    """Tokenize each prompt with the tokenizer's special tokens, truncated to 256 tokens; all continuations, without
    special tokens, follow the first prompt.

    Raises `InvalidProbeSet` if a prompt has no tokens.
    """
    rows = tokenizer(list(probes.prompts), truncation=True, max_length=MAX_PROMPT_TOKENS)["input_ids"]
    for number, row in enumerate(rows, 1):
        if not row:
            raise InvalidProbeSet(f"Prompt {number} of {probes.name} has no tokens in this base's tokenizer.")
    tails = tokenizer(list(continuations), add_special_tokens=False)["input_ids"] if continuations else []
    plan = _plan_rows(rows, [dict(enumerate(tails)), *({} for _ in rows[1:])])
    return replace(plan, layer=layer, middle=middle, to_end=to_end, head=head, whole=whole)


def plan_proof(plan: TokenPlan) -> TokenPlan:
    """Two prompts that read what `plan` reads: its longest prompt, followed by two of its continuations if it has any,
    and the first half of that prompt.
    """
    prompts = [plan.ids[(plan.probe == number) & (plan.branch == PROMPT)].tolist() for number in range(plan.probes)]
    longest = max(prompts, key=len)
    if len(longest) == 1:
        longest = longest * 2
    tails = {number: longest for number in range(2)} if len(plan.target) else {}
    proof = _plan_rows([longest, longest[: len(longest) // 2]], [tails, {}])
    settings = {name: getattr(plan, name) for name in ("layer", "middle", "to_end", "head", "whole")}
    return replace(proof, **settings).to(str(plan.ids.device))


def plan_answers(rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> TokenPlan:
    """A plan that predicts answers: token ids of prompts, each with one answer."""
    return plan_choices([(prompt, [answer]) for prompt, answer in rows])


def plan_choices(rows: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]]) -> TokenPlan:
    """A plan that predicts answers: token ids of prompts, each with the same number of answers to choose from."""
    answers = [
        {number * len(choices) + choice: list(answer) for choice, answer in enumerate(choices)}
        for number, (_, choices) in enumerate(rows)
    ]
    plan = _plan_rows([list(prompt) for prompt, _ in rows], answers)
    return replace(plan, head=True, whole=False)


def _plan_rows(rows: Sequence[list[int]], tails_of_rows: Sequence[Mapping[int, list[int]]]) -> TokenPlan:
    """The plan of prompt rows, each with its continuation tokens (`tails`) by the number of the continuation."""
    ids: list[int] = []
    positions: list[int] = []
    probe: list[int] = []
    branch: list[int] = []
    last: list[int] = []
    scored: list[tuple[int, int, int]] = []  # predictor, target, continuation
    for number, (row, tails) in enumerate(zip(rows, tails_of_rows, strict=True)):
        ids += row
        positions += range(len(row))
        branch += [PROMPT] * len(row)
        last.append(len(ids) - 1)
        for continuation_number, tail in tails.items():
            predictors = [last[-1], *range(len(ids), len(ids) + len(tail) - 1)]
            scored += [(source, token, continuation_number) for source, token in zip(predictors, tail, strict=True)]
            ids += tail[:-1]
            positions += range(len(row), len(row) + len(tail) - 1)
            branch += [continuation_number] * (len(tail) - 1)
        probe += [number] * (len(ids) - len(probe))
    predictor, target, continuation = torch.tensor(scored, dtype=torch.long).view(-1, 3).unbind(1)
    ids_, positions_, probe_, last_, branch_ = (
        torch.tensor(tensor) for tensor in (ids, positions, probe, last, branch)
    )
    return TokenPlan(ids_, positions_, probe_, last_, branch_, predictor, target, continuation)
