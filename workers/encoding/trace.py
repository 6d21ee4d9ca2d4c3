"""One forward pass of packed prompts, and what it leaves behind for the features to read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from workers.encoding.packing import pack
from workers.encoding.prompts import TokenPlan


@dataclass(frozen=True, eq=False)
class Trace:
    """What one model's forward left: all that any feature needs.

    `hidden` are float32 hidden states at the encoder's layer, in the plan's order of tokens.
    """

    plan: TokenPlan
    hidden: Tensor  # (T, H)


def run(model: PreTrainedModel, plan: TokenPlan, models: int) -> list[Trace]:
    """The traces of K models that share the resident weights and differ by the hooks that are on them now."""
    packing = pack(plan, models)
    with torch.inference_mode():
        output = model(
            input_ids=plan.ids.repeat(models)[None],
            position_ids=plan.positions.repeat(models)[None],
            use_cache=False,
            packing=packing,
        )
        hidden = output.last_hidden_state.float().view(models, plan.tokens, -1)  # (K, T, H)
    return [Trace(plan, one) for one in hidden]
