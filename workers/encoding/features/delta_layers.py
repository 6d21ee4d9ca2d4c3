"""Delta Activations in the middle of the model, concatenated with those at its end.

The middle separates similar tasks better, the end reflects how a model answers (docs/representation.md). Each part is
divided by the norm of the base's mean state at its layer, because states grow from layer to layer. The result is still
linear in the shift, so norms measure how far a model moved, and vectors of mixtures add up.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workers.encoding.features.base import MIDDLE_DEPTH, Feature
from workers.encoding.trace import Trace


class DeltaLayers(Feature):
    name = "delta_layers"
    at_layer = False
    in_the_middle = True

    def table(self, trace: Trace) -> Tensor:
        assert trace.middle is not None  # the plan of this feature has both
        assert trace.final is not None
        return torch.cat([trace.middle[trace.plan.last], trace.final[trace.plan.last]], dim=1)  # (N, 2H)

    def vector(self, tuned: Tensor, base: Tensor) -> Tensor:
        shift, base_mean = ((table.mean(dim=0).view(2, -1)) for table in (tuned - base, base))  # (2, H) each
        return (shift / base_mean.norm(dim=1, keepdim=True)).flatten()  # (2H,)

    def version(self, encoder: str) -> str:
        return f"{encoder}+middle-{MIDDLE_DEPTH}"
