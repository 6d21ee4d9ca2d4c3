"""Delta Activations with a mean over all tokens of a prompt, weighted towards later ones.

The weight of the t-th of n tokens is t / (1 + ... + n), as in SGPT, arXiv 2202.08904.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workers.encoding.features.base import Feature
from workers.encoding.trace import Trace


class DeltaWeightedActivations(Feature):
    name = "delta_weighted_activations"
    whole_prompts = True

    def table(self, trace: Trace) -> Tensor:
        plan, tokens = trace.plan, trace.plan.prompt_tokens
        position = plan.positions[tokens] + 1.0  # t, from 1
        total = torch.zeros(plan.probes, device=position.device).index_add_(0, plan.probe[tokens], position)
        weights = position / total[plan.probe[tokens]]
        table = torch.zeros(plan.probes, trace.hidden.shape[1], device=position.device)
        return table.index_add_(0, plan.probe[tokens], trace.hidden[tokens] * weights[:, None])  # (N, H)
