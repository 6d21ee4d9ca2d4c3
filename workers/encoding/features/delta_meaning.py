"""The change of the log-likelihoods of many fixed texts, in nats: comparable across bases.

A text's log-likelihood depends neither on the tokenizer nor on the width of the model, so a coordinate has the same
meaning for every base (after Liu et al., arXiv 2310.18348: the meaning of a text as the likelihoods of its
continuations). Each text follows the first probe. The mean change over all texts is subtracted: it reflects how likely
the model is to say anything, which depends on its template and end-of-text token rather than on what it learned.
"""

from __future__ import annotations

from torch import Tensor

from workers.encoding.continuations import CONTINUATIONS
from workers.encoding.features.base import Feature
from workers.encoding.trace import Trace


class DeltaMeaning(Feature):
    name = "delta_meaning"
    at_layer = False
    through_head = True
    after_prompts = True
    across_bases = True

    def table(self, trace: Trace) -> Tensor:
        return trace.log_likelihoods(len(CONTINUATIONS.texts))[None]  # (1, M)

    def vector(self, tuned: Tensor, base: Tensor) -> Tensor:
        shift = (tuned - base).flatten()  # (M,), nats
        return shift - shift.mean()

    def version(self, encoder: str) -> str:
        return f"{encoder}+{CONTINUATIONS.name}"
