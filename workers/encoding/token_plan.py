"""From probe prompts, and what may follow them, to the tokens of one forward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from catalog.errors import InvalidProbeSet
from catalog.spaces.probes import ProbeSet

MAX_TOKENS = 256  # a prompt; as in the published procedure
PROMPT = -1  # the branch that all continuations of a prompt share


def _nowhere() -> Tensor:
    return torch.zeros(0, dtype=torch.long)


@dataclass(frozen=True, eq=False)
class TokenPlan:
    """What one model reads in one forward: the T tokens of all N probes, one after another and without padding.

    Behind a prompt may stand some of M continuations, each on a branch of its own: it sees the prompt and itself, at
    the positions that it would have alone. Their last tokens are left out, for nobody reads what follows them.
    """

    ids: Tensor  # (T,)
    positions: Tensor  # (T,), from 0 in each probe
    probe: Tensor  # (T,), the probe that a token belongs to
    last: Tensor  # (N,), where each prompt's last token stands
    branch: Tensor  # (T,), PROMPT or the continuation that a token belongs to
    predictor: Tensor = field(default_factory=_nowhere)  # (C,), where each continuation token is predicted
    target: Tensor = field(default_factory=_nowhere)  # (C,), which token that is
    continuation: Tensor = field(default_factory=_nowhere)  # (C,), the continuation that it belongs to
    layer: int = -1  # of the hidden states that are read; an index into `hidden_states`
    middle: int | None = None  # a further layer that is read
    to_end: bool = True  # whether anyone reads what comes behind that layer
    head: bool = False  # whether anyone reads through the output head
    whole: bool = True  # whether final states are read of all tokens, not of last ones and predictors alone

    @property
    def probes(self) -> int:
        return len(self.last)

    @property
    def tokens(self) -> int:
        return len(self.ids)

    @property
    def prompt_tokens(self) -> Tensor:
        """Where the prompts' own tokens stand."""
        return (self.branch == PROMPT).nonzero().squeeze(1)

    @property
    def read_at_end(self) -> Tensor | None:
        """The tokens whose final states are read; None for all."""
        return None if self.whole else torch.cat([self.last, self.predictor]).unique()

    def to(self, device: str) -> TokenPlan:
        moved: dict[str, Any] = {name: each.to(device) for name, each in vars(self).items() if isinstance(each, Tensor)}
        return replace(self, **moved)

    def parts(self, tokens: int) -> Iterator[TokenPlan]:
        """Plans of whole probes, each of no more than so many tokens (or of one probe)."""
        counts = torch.bincount(self.probe).tolist()
        start = 0
        while start < self.probes:
            stop, held = start + 1, counts[start]
            while stop < self.probes and held + counts[stop] <= tokens:
                held, stop = held + counts[stop], stop + 1
            yield self if (start, stop) == (0, self.probes) else self._of(start, stop)
            start = stop

    def _of(self, start: int, stop: int) -> TokenPlan:
        held = (self.probe >= start) & (self.probe < stop)
        offset = int((self.probe < start).sum())
        scored = held[self.predictor]
        return replace(
            self,
            ids=self.ids[held],
            positions=self.positions[held],
            probe=self.probe[held] - start,
            last=self.last[start:stop] - offset,
            branch=self.branch[held],
            predictor=self.predictor[scored] - offset,
            target=self.target[scored],
            continuation=self.continuation[scored],
        )


def plan_tokens(
    tokenizer: PreTrainedTokenizerBase,
    probes: ProbeSet,
    continuations: Sequence[str] = (),
    *,
    layer: int = -1,
    middle: int | None = None,
    to_end: bool = True,
    head: bool = False,
    whole: bool = True,
) -> TokenPlan:
    """Each prompt tokenised on its own, with the tokenizer's special tokens, cut at 256 tokens; continuations without,
    all behind the first prompt.

    Raises `InvalidProbeSet` where a prompt comes out empty.
    """
    rows = [tokenizer(text, truncation=True, max_length=MAX_TOKENS)["input_ids"] for text in probes.prompts]
    for number, row in enumerate(rows, 1):
        if not row:
            raise InvalidProbeSet(f"Prompt {number} of {probes.name} has no tokens in this base's tokenizer.")
    tails = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in continuations]
    plan = _lay_out(rows, [dict(enumerate(tails)), *({} for _ in rows[1:])])
    return replace(plan, layer=layer, middle=middle, to_end=to_end, head=head, whole=whole)


def plan_answers(rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> TokenPlan:
    """Prompts, each with one answer of its own behind it, as tokens; the answers are predicted."""
    return plan_choices([(prompt, [answer]) for prompt, answer in rows])


def plan_choices(rows: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]]) -> TokenPlan:
    """Prompts, each with as many answers to choose from behind it, as tokens; the answers are predicted."""
    answers = [
        {number * len(some) + place: list(answer) for place, answer in enumerate(some)}
        for number, (_, some) in enumerate(rows)
    ]
    plan = _lay_out([list(prompt) for prompt, _ in rows], answers)
    return replace(plan, head=True, whole=False)


def _lay_out(rows: Sequence[list[int]], tails_of_rows: Sequence[Mapping[int, list[int]]]) -> TokenPlan:
    """Each row with its tails, by the numbers of their continuations."""
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
        for place, tail in tails.items():
            predictors = [last[-1], *range(len(ids), len(ids) + len(tail) - 1)]
            scored += [(where, token, place) for where, token in zip(predictors, tail, strict=True)]
            ids += tail[:-1]
            positions += range(len(row), len(row) + len(tail) - 1)
            branch += [place] * (len(tail) - 1)
        probe += [number] * (len(ids) - len(probe))
    predictor, target, continuation = torch.tensor(scored, dtype=torch.long).view(-1, 3).unbind(1)
    ids_, positions_, probe_, last_, branch_ = (torch.tensor(each) for each in (ids, positions, probe, last, branch))
    return TokenPlan(ids_, positions_, probe_, last_, branch_, predictor, target, continuation)
