"""How well fine-tunes, and their base, say the outputs of examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from catalog.errors import CatalogError
from catalog.tasks.examples import Example
from workers.encoding.encoder import Encoder
from workers.encoding.token_plan import TokenPlan, plan_answers
from workers.encoding.trace import Trace
from workers.finetunes.reading import FineTune
from workers.tasks.token_rows import encode

LOGIT_BYTES = 64 * 2**20  # of logits at a time


@dataclass(frozen=True, eq=False)
class Losses:
    """The summed negative log-likelihood of each example's output (n,), in nats, and its tokens (n,)."""

    summed: np.ndarray
    tokens: np.ndarray

    @property
    def per_token(self) -> float:
        """Nats a token, over all examples."""
        return float(self.summed.sum() / self.tokens.sum())


class Scorer:
    """Examples in the tokens of one encoder's base, cut as for training."""

    def __init__(self, encoder: Encoder, examples: Sequence[Example], limit: int) -> None:
        rows = [encode(example, encoder.base.tokenizer, limit) for example in examples]
        self._encoder = encoder
        self._plan = plan_answers([(row.ids[: row.prompt], row.ids[row.prompt :]) for row in rows]).to(
            encoder.base.device
        )

    def base(self) -> Losses:
        """The base's own."""
        return losses_of(self._encoder.trace_base(self._plan))

    def finetunes(self, finetunes: Sequence[FineTune]) -> list[Losses | CatalogError]:
        """One result for each fine-tune, in order; what is wrong with one becomes its result."""
        traces = self._encoder.trace(finetunes, self._plan)
        return [trace if isinstance(trace, CatalogError) else losses_of(trace) for trace in traces]


def losses_of(trace: Trace) -> Losses:
    """Of each continuation of the trace's plan, in order."""
    plan: TokenPlan = trace.plan
    tokens = torch.bincount(plan.continuation)
    summed: Any = torch.zeros(len(tokens), device=trace.hidden.device)
    step = max(1, LOGIT_BYTES // (4 * trace.vocabulary))
    with torch.inference_mode():
        for start in range(0, len(plan.target), step):
            part = slice(start, start + step)
            logits = trace.logits(plan.predictor[part])  # (step, V)
            chosen = logits.gather(1, plan.target[part, None]).squeeze(1)
            summed.index_add_(0, plan.continuation[part], logits.logsumexp(dim=1) - chosen)
    return Losses(summed.double().cpu().numpy(), tokens.cpu().numpy())
