"""The trace of a forward pass, which the features read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.encoding.output_head import Head
from workers.encoding.token_plan import TokenPlan

MAX_LOGIT_BYTES = 64 * 2**20  # of logits at a time; those of a whole forward pass can be larger than the model


@dataclass(frozen=True, eq=False)
class Trace:
    """The states of one forward pass that features read, float32, in the plan's order of tokens.

    `head` is None if the model has the output head of its base. `notes` are sentences for users about how the model was
    run.
    """

    plan: TokenPlan
    hidden: Tensor  # (T, H), at the plan's layer
    final: Tensor | None  # (T, H), after the final norm; None if the plan ends earlier
    middle: Tensor | None = None  # (T, H), at the plan's middle layer; None if it has none
    head: Head | None = None
    notes: tuple[str, ...] = ()

    @property
    def vocabulary(self) -> int:
        return self._head.vocabulary

    def logits(self, tokens: Tensor) -> Tensor:
        """The logits after M tokens, (M, V)."""
        assert self.final is not None  # a plan for logits runs all layers
        return self._head.logits(self.final[tokens])

    def log_likelihoods(self, continuations: int) -> Tensor:
        """The log-likelihood of each continuation of the plan, (continuations,), in nats."""
        plan = self.plan
        likelihoods = torch.zeros(continuations, device=self.hidden.device)
        step = max(1, MAX_LOGIT_BYTES // (4 * self.vocabulary))
        for start in range(0, len(plan.target), step):
            block = slice(start, start + step)
            logits = self.logits(plan.predictor[block])  # (step, V)
            target_logits = logits.gather(1, plan.target[block, None]).squeeze(1)
            likelihoods.index_add_(0, plan.continuation[block], target_logits - logits.logsumexp(dim=1))
        return likelihoods

    @property
    def _head(self) -> Head:
        assert self.head is not None  # the encoder sets the base's head
        return self.head

    def select(self, plan: TokenPlan, tokens: Tensor) -> Trace:
        """The trace of `plan`, whose tokens are `tokens` of this trace."""
        final, middle = (None if state is None else state[tokens] for state in (self.final, self.middle))
        return Trace(plan, self.hidden[tokens], final, middle, self.head, self.notes)


def join(plan: TokenPlan, parts: Sequence[Trace]) -> Trace:
    """The trace of a plan that was run in parts."""
    if len(parts) == 1:
        return parts[0]
    hidden = torch.cat([part.hidden for part in parts])
    final, middle = _joined(part.final for part in parts), _joined(part.middle for part in parts)
    return Trace(plan, hidden, final, middle, parts[0].head, parts[0].notes)


def _joined(states: Iterable[Tensor | None]) -> Tensor | None:
    present = [state for state in states if state is not None]
    return torch.cat(present) if present else None
