"""The losses of fine-tunes, and of their base, on the outputs of examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from catalog.errors import CatalogError
from catalog.tasks.examples import Example
from workers.encoding.encoder import Encoder
from workers.encoding.token_plan import plan_answers
from workers.encoding.trace import Trace
from workers.finetunes.reading import FineTune
from workers.tasks.token_rows import encode


@dataclass(frozen=True, eq=False)
class Losses:
    """The summed negative log-likelihood (n,) of each example's output, in nats, and its number of tokens (n,)."""

    summed: np.ndarray
    tokens: np.ndarray

    @property
    def per_token(self) -> float:
        """In nats per token, over all examples."""
        return float(self.summed.sum() / self.tokens.sum())


class Scorer:
    """Scores fine-tunes of an encoder's base on examples, which are truncated as for training."""

    def __init__(self, encoder: Encoder, examples: Sequence[Example], max_tokens: int) -> None:
        rows = [encode(example, encoder.base.tokenizer, max_tokens) for example in examples]
        self._encoder = encoder
        self._plan = plan_answers([(row.ids[: row.prompt_length], row.ids[row.prompt_length :]) for row in rows]).to(
            encoder.base.device
        )

    def base(self) -> Losses:
        """The losses of the base itself."""
        return losses_of(self._encoder.trace_base(self._plan))

    def finetunes(self, finetunes: Sequence[FineTune]) -> list[Losses | CatalogError]:
        """The losses of each fine-tune, in order, or the error that it raised."""
        traces = self._encoder.trace(finetunes, self._plan)
        return [trace if isinstance(trace, CatalogError) else losses_of(trace) for trace in traces]


def losses_of(trace: Trace) -> Losses:
    """The losses of the continuations of a trace's plan, in order."""
    tokens = torch.bincount(trace.plan.continuation)
    with torch.inference_mode():
        summed = -trace.log_likelihoods(len(tokens))
    return Losses(summed.double().cpu().numpy(), tokens.cpu().numpy())
