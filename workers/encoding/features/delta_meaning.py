"""Which of many fixed texts a model has come to prefer, in nats: comparable across bases.

A text's log-likelihood depends neither on the tokenizer nor on the width of the model, and so a coordinate means the
same for every base (after Liu et al., arXiv 2310.18348: the meaning of a text as the likelihoods of its continuations).
Each text stands behind the first probe. What a model's texts have gained or lost on average is taken off: that is how
readily it says anything, and changes with its template and end of text rather than with what it learned.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workers.encoding.continuations import CONTINUATIONS
from workers.encoding.features.base import Feature
from workers.encoding.trace import Trace

LOGIT_BYTES = 64 * 2**20  # of logits at a time; a whole forward's would be larger than its model


class DeltaMeaning(Feature):
    name = "delta_meaning"
    at_layer = False
    through_head = True
    after_prompts = True
    across_bases = True

    def table(self, trace: Trace) -> Tensor:
        plan = trace.plan
        summed = torch.zeros(len(CONTINUATIONS.texts), device=trace.hidden.device)
        step = max(1, LOGIT_BYTES // (4 * trace.vocabulary))
        for start in range(0, len(plan.target), step):
            part = slice(start, start + step)
            logits = trace.logits(plan.predictor[part])  # (step, V)
            chosen = logits.gather(1, plan.target[part, None]).squeeze(1)
            summed.index_add_(0, plan.continuation[part], chosen - logits.logsumexp(dim=1))
        return summed[None]  # (1, M)

    def vector(self, tuned: Tensor, base: Tensor) -> Tensor:
        shift = (tuned - base).flatten()  # (M,), nats
        return shift - shift.mean()

    def version(self, encoder: str) -> str:
        return f"{encoder}+{CONTINUATIONS.name}"
